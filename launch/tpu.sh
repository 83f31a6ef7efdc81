# shellcheck shell=bash
# Training on TPU VMs, the same for both ways of getting them: tpu_vm.sh and queued.sh source
# this after base.sh, add their flags, set `group`, `every`, `create_flags` and call `main "$@"`.

# What they add to these flags is only how machines are asked for.
flags+=(
  [name]='' [zone]='' [project]='' [accelerator]='' [runtime]='' [spot]=off [env-file]=''
  [worker]=0 [slices]=1 [attempts]=10 [restarts]=3 [preemptions]=100
)
patience=${EAGLE_PATIENCE:-20} # polls a worker may still run after another has failed
group=()                       # gcloud commands for these machines
every=()                       # flags that mean all workers of all nodes
where=()                       # zone and project
create_flags=()
remote=eagle_jax # folder of the source below the home directory of a worker

# The state of the machines in one word, ABSENT where there are none.
state() {
  local said status=0 errors
  errors=$(mktemp)
  said=$(ask "$1" run "${group[@]}" describe "${flags[name]}" "${where[@]}" \
    "--format=value($state_field)" 2>"$errors") || status=$?
  if ((status)) && grep -q NOT_FOUND "$errors"; then
    said=ABSENT status=0
  fi
  ((status == 0)) || cat "$errors" >&2
  rm -f "$errors"
  [[ -z $said ]] || printf '%s\n' "$said"
  return "$status"
}

# try_state ASSUMED: `state`, again after a pause where gcloud itself fails.
try_state() {
  local tries=1
  until state "$1"; do
    ((tries++ < flags[attempts])) || fail "gcloud cannot tell the state of '${flags[name]}'"
    pause
  done
}

create() {
  run "${group[@]}" create "${flags[name]}" "${where[@]}" "--accelerator-type=${flags[accelerator]}" \
    "${create_flags[@]}"
}

delete() {
  run "${group[@]}" delete "${flags[name]}" "${where[@]}" "${delete_flags[@]}"
}

# on_workers COMMAND: runs it in the home directory of every worker.
on_workers() {
  run "${group[@]}" ssh "${flags[name]}" "${where[@]}" "${every[@]}" \
    --ssh-flag=-oConnectTimeout=30 --ssh-flag=-oServerAliveInterval=15 "--command=$1"
}

# obtain: returns when the machines are there. A refusal that may pass is met by waiting longer
# each time, for a limited number of times; any other is an error.
obtain() {
  local tries=0 now assumed=ABSENT errors
  while :; do
    now=$(try_state "$assumed")
    case $now in
      ACTIVE | READY) return ;;
      ABSENT)
        ((++tries <= flags[attempts])) ||
          fail "no machines after ${flags[attempts]} requests (--attempts)"
        ((tries == 1)) || pause $((1 << (tries < 6 ? tries - 2 : 4)))
        note "requests ${flags[accelerator]}, request $tries of at most ${flags[attempts]}"
        errors=$(mktemp)
        if ! create 2>"$errors" && ! passes "$errors"; then
          cat "$errors" >&2 && rm -f "$errors"
          fail "'${flags[name]}' cannot be created"
        fi
        cat "$errors" >&2 && rm -f "$errors"
        assumed=$ready
        ;;
      FAILED | SUSPENDED | PREEMPTED | TERMINATED)
        note "'${flags[name]}' is $now: deletes it"
        delete || {
          ((++tries <= flags[attempts])) || fail "'${flags[name]}' cannot be deleted"
          pause
        }
        ;;
      ACCEPTED | CREATING | WAITING_FOR_RESOURCES | PROVISIONING | STARTING | RESTARTING | \
        REPAIRING | REIMAGING | SUSPENDING | DELETING | STOPPING)
        note "'${flags[name]}' is $now"
        pause
        ;;
      *) fail "'${flags[name]}' is $now, which this script does not know how to leave" ;;
    esac
  done
}

# passes FILE: whether what gcloud complained of may be gone later, or is no fault at all.
passes() {
  grep -qE 'ALREADY_EXISTS|RESOURCE_EXHAUSTED|[Qq]uota|no more capacity|UNAVAILABLE|INTERNAL|DEADLINE_EXCEEDED|ABORTED' "$1"
}

# pack: the source as one archive whose bytes depend on nothing but the files.
pack() {
  local archive=$root/runs/launch/eagle_jax.tar.gz
  [[ $dry_run == on ]] || mkdir -p "${archive%/*}"
  run tar --create --file="$archive" --use-compress-program='gzip -n' --directory="$root" \
    --sort=name --mtime=@0 --owner=0 --group=0 --numeric-owner --exclude=__pycache__ \
    eagle_jax configs launch pyproject.toml requirements.txt requirements.lock README.md LICENSE
}

send() {
  run "${group[@]}" scp "$@" "${where[@]}" "${every[@]}"
}

# setup: the same source and the same packages on every worker, or an error.
setup() {
  local report
  check_env_file
  pack
  send "$root/runs/launch/eagle_jax.tar.gz" "${flags[name]}:eagle_jax.tar.gz" || return
  if [[ -n ${flags[env-file]} ]]; then
    send "${flags[env-file]}" "${flags[name]}:eagle.env" || return
  fi
  report=$(ask 'eagle-worker any setup same' on_workers "rm -rf $remote/eagle_jax $remote/configs \
&& mkdir -p $remote && tar -xzf eagle_jax.tar.gz -C $remote && $remote/launch/worker.sh setup") ||
    return
  report=$(awk '$1 == "eagle-worker" && $3 == "setup"' <<<"$report")
  (($(awk '{print $4}' <<<"$report" | sort -u | wc -l) == 1)) || {
    printf '%s\n' "$report" >&2
    fail "the workers differ in source or packages, they would wait for each other for ever"
  }
}

# start: a worker that already trains is left alone.
start() {
  on_workers "$remote/launch/worker.sh start --slices=${flags[slices]} -- $(quoted "${trainer[@]}")"
}

# status [ASSUMED]: lines `eagle-worker HOST idle|running|gone|exited [CODE]`.
status() {
  ask "eagle-worker any ${1:-idle}" on_workers \
    "if [ -x $remote/launch/worker.sh ]; then $remote/launch/worker.sh status; \
else echo eagle-worker \$(hostname) idle; fi" | awk '$1 == "eagle-worker"'
}

stop() {
  on_workers "$remote/launch/worker.sh stop"
}

# begin: every worker trains, whether a launcher before this one had begun or not. Machines
# that have just come up may not let anyone in yet.
begin() {
  local report unheard=0
  until report=$(status); do
    ((++unheard < flags[attempts])) && [[ $(try_state "$ready") == "$ready" ]] || return
    pause
  done
  if grep -q ' running' <<<"$report"; then
    grep -qv ' running' <<<"$report" || return 0
    stop || return # some had not been started
  fi
  setup && start
}

# outcome REPORT: one word of all workers' ends.
outcome() {
  if grep -q 'exited 43$' <<<"$1"; then
    echo fatal
  elif grep -q 'exited 42$' <<<"$1"; then
    echo saved
  elif grep -qv 'exited 0$' <<<"$1"; then
    echo failed
  else
    echo 'done'
  fi
}

# watch: waits until no worker trains; sets `ended` to done, saved, fatal, failed or preempted.
watch() {
  local report unheard=0 leaving=0
  while :; do
    if ! report=$(status 'exited 0') || [[ -z $report ]]; then
      [[ $(try_state "$ready") == "$ready" ]] || { ended=preempted && return; }
      ((++unheard < flags[attempts])) || fail "the workers of '${flags[name]}' do not answer"
    elif ! grep -q ' running' <<<"$report"; then
      ended=$(outcome "$report") && return
    elif grep -qvE ' (running|exited 0)$' <<<"$report" && ((++leaving > patience)); then
      note "some workers have ended, others have not left since: stops them"
      stop || true
      leaving=0
    else
      unheard=0
    fi
    pause
  done
}

# train: until the training is done, whatever happens to the machines. 0 done, 43 a mistake that
# a restart would repeat, 1 given up. The same command goes on where this one was interrupted.
train() {
  local restarts=0 preemptions=0 ended
  while :; do
    obtain
    if begin; then
      watch
    elif [[ $(try_state "$ready") == "$ready" ]]; then
      ended=failed
    else
      ended=preempted
    fi
    note "training on '${flags[name]}': $ended"
    case $ended in
      'done') return 0 ;;
      fatal)
        note "see the log with: ${0##*/} logs --name=${flags[name]} --zone=${flags[zone]}"
        return 43
        ;;
      failed)
        ((++restarts <= flags[restarts])) || { note "gives up (--restarts)" && return 1; }
        ;;
      saved | preempted)
        ((++preemptions <= flags[preemptions])) || { note "gives up (--preemptions)" && return 1; }
        ;;
    esac
    pause
  done
}

# main VERB FLAG…
main() {
  local verb=${1:---help}
  [[ $verb != --help && $verb != -h ]] || { usage && exit 0; }
  shift
  read_flags "$@"
  need name zone
  match "$name_pattern" name
  match '[a-z0-9-]+' zone
  match "$count_pattern" slices attempts
  match '[0-9]{1,6}' restarts preemptions worker
  where=("--zone=${flags[zone]}")
  [[ -z ${flags[project]} ]] || where+=("--project=${flags[project]}")
  machines
  case $verb in
    train | create) need accelerator runtime ;;&
    train | start) need_trainer ;;&
    train | setup) check_env_file ;;&
    train | setup | start | stop | delete) "$verb" ;;
    create) obtain ;;
    status) status ;;
    logs)
      run "${group[@]}" ssh "${flags[name]}" "${where[@]}" "--worker=${flags[worker]}" \
        "--command=$remote/launch/worker.sh logs"
      ;;
    *) fail "has no verb '$verb'. Verbs: train create setup start status logs stop delete" ;;
  esac
}
