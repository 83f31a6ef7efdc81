#!/usr/bin/env bash
# Runs eagle-jax on one host, whatever brought it there.
#
#   launch/worker.sh exec [--slices=N] -- train --config=… --workdir=…
#
#   setup    makes .venv from the lock file, with libtpu, where it is not there yet
#   exec     runs the trainer in the foreground, as a container or a managed job does
#   start    runs it detached, as an ssh session would end before it; once only
#   status   prints `eagle-worker HOST idle|running|gone|exited [CODE]`
#   logs     prints the end of the log of `start`
#   stop     SIGTERM, and SIGKILL after EAGLE_GRACE_SECONDS (600)
#
# SIGTERM and SIGINT reach the trainer as SIGTERM. Exit codes are the trainer's: 0 done,
# 42 saved after SIGTERM, 43 a mistake that a restart would repeat, others crashes. Its own code
# for a mistake on the command line, 2, is passed on as 43.
#
# The environment is taken from EAGLE_ENV_FILE (~/eagle.env), lines NAME=value, mode 600.
# shellcheck source-path=SCRIPTDIR
source "$(dirname "${BASH_SOURCE[0]}")/base.sh"

flags=([slices]=1 [env-file]=${EAGLE_ENV_FILE:-$HOME/eagle.env})
state=${EAGLE_RUN_DIR:-$HOME/eagle_run}
grace=${EAGLE_GRACE_SECONDS:-600}

# find_python: the first Python that is new enough; sets `python`.
find_python() {
  for python in "${PYTHON:-}" python3.12 python3.11 python3.13 python3; do
    command -v "${python:-absent}" >/dev/null || continue
    "$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && return
  done
  return 1
}

# make_environment: .venv with an own Python where the machine's is too old.
make_environment() {
  [[ ! -x $root/.venv/bin/python ]] || return 0
  if find_python; then
    "$python" -m venv "$root/.venv"
  else
    python3 -m pip install --quiet --user uv
    python3 -m uv venv --quiet --seed --python 3.11 "$root/.venv"
  fi
}

# setup: ends with one line by which the launcher compares the workers.
setup() {
  local wanted pip=("$root/.venv/bin/python" -m pip)
  make_environment >&2
  wanted=$(cat "$root/requirements.lock" "$root/pyproject.toml" | sha256sum)
  if [[ $(cat "$root/.venv/installed" 2>/dev/null) != "$wanted" ]]; then
    "${pip[@]}" install --quiet --disable-pip-version-check \
      --requirement "$root/requirements.lock" --editable "${root}[tpu]" >&2
    printf '%s\n' "$wanted" >"$root/.venv/installed"
  fi
  printf 'eagle-worker %s setup %s\n' "$(hostname)" "$(fingerprint)"
}

# fingerprint: of source and installed packages.
fingerprint() {
  {
    "$root/.venv/bin/python" -m pip freeze --all --exclude-editable
    cd "$root" && find eagle_jax configs launch -type f -not -path '*/__pycache__/*' \
      -exec sha256sum {} + | LC_ALL=C sort
  } | sha256sum | cut -c1-16
}

# load_environment: the file's lines as they stand, nothing in them is evaluated.
load_environment() {
  local line
  [[ -e ${flags[env-file]} ]] || return 0
  check_env_file
  while IFS= read -r line || [[ -n $line ]]; do
    [[ -z $line || $line == '#'* ]] || export "${line?}"
  done <"${flags[env-file]}"
}

# foreground: runs the trainer as a child, passes signals on, sets `code` to how it ended.
foreground() {
  local signalled=off child='' command python=$root/.venv/bin/python
  command=${EAGLE_JAX:-$root/.venv/bin/eagle-jax}
  [[ -x $command ]] || command=$(command -v eagle-jax) ||
    fail "eagle-jax is not installed: worker.sh setup"
  [[ -x $python ]] || python=python3
  load_environment
  if [[ ${trainer[0]} == train && " ${trainer[*]} " != *" --distributed "* ]]; then
    trainer+=(--distributed)
  fi
  trap 'signalled=on; [[ -z $child ]] || kill -TERM "$child" 2>/dev/null || true' TERM INT
  "$python" "$launch/multislice.py" "--slices=${flags[slices]}" -- "$command" "${trainer[@]}" &
  child=$!
  [[ $signalled == off ]] || kill -TERM "$child" 2>/dev/null || true # it came before the trainer
  signalled=on
  while [[ $signalled == on ]]; do # a signal ends `wait`, not the trainer
    signalled=off code=0
    wait "$child" || code=$?
  done
  ((code != 2)) || code=43
}

# start: detached. The lock is held by all that runs, so a second start sees the first.
start() {
  mkdir -p "$state" && chmod 700 "$state"
  exec 9>>"$state/lock"
  if ! flock -n 9; then
    echo "eagle-worker $(hostname) running"
    return
  fi
  rm -f "$state/code"
  printf '%(%F %T)T %s\n' -1 "$(quoted eagle-jax "${trainer[@]}")" >>"$state/log"
  setsid "$launch/worker.sh" supervise "--slices=${flags[slices]}" -- "${trainer[@]}" \
    >>"$state/log" 2>&1 3>&1 </dev/null &
  echo $! >"$state/pid" # of the process group too
  echo "eagle-worker $(hostname) running"
}

# supervise: what `start` leaves behind.
supervise() {
  trap 'echo "${code:-$?}" >"$state/code.new" && mv "$state/code.new" "$state/code"' EXIT
  foreground
}

is_running() {
  [[ -e $state/lock ]] && ! flock -n "$state/lock" true
}

status() {
  local now=idle
  if is_running; then
    now=running
  elif [[ -e $state/code ]]; then
    now="exited $(cat "$state/code")"
  elif [[ -e $state/pid ]]; then
    now=gone
  fi
  echo "eagle-worker $(hostname) $now"
}

stop() {
  local waited=0
  if is_running; then
    kill -TERM "$(cat "$state/pid")" 2>/dev/null || true
    while is_running && ((waited++ < grace)); do sleep 1; done
    ! is_running || kill -KILL -- "-$(cat "$state/pid")"
  fi
  status
}

verb=${1:---help}
[[ $verb != --help && $verb != -h ]] || { usage && exit 0; }
shift
[[ $verb != exec && $verb != supervise ]] || mistake=43
read_flags "$@"
match "$count_pattern" slices
case $verb in
  exec | start | supervise) need_trainer ;;&
  exec) foreground; exit "$code" ;;
  logs) tail -n 100 "$state/log" ;;
  setup | start | supervise | status | stop) "$verb" ;;
  *) fail "has no verb '$verb'. Verbs: setup exec start status logs stop" ;;
esac
