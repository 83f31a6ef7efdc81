#!/usr/bin/env bash
# Trains one stage on emulated devices of this machine's CPU, to try a mesh before renting one.
#
#   launch/local_cpu.sh 8 --config=debug:finetune --workdir=runs/debug \
#     --config.mesh.data=2 --config.mesh.fsdp=2 --config.mesh.tensor=2 …
#
#   launch/local_cpu.sh [--dry-run] [PROCESSESx]DEVICES FLAGS…, FLAGS as for eagle-jax train
#
# 2x4 are two processes with four devices each, joined as the hosts of a pod are. What a process
# prints is in WORKDIR/logs/process_K.log; that of process 0 is shown as well. SIGTERM and SIGINT
# reach every process as SIGTERM. Once one has failed, the others cannot go on: they have
# EAGLE_LEAVE_SECONDS (10, or 120 where it left with 42 as they do) to leave of themselves before
# they are ended. The exit code is that of the first that failed.
set -euo pipefail

case ${1:-} in
  -h | --help) sed -n '2,/^[^#]/{s/^# \{0,1\}//p;}' "$0" && exit ;;
  --dry-run) dry_run=on && shift ;;
  *) dry_run=off ;;
esac
if [[ $# -lt 2 || ! $1 =~ ^(([1-9][0-9]*)x)?([1-9][0-9]*)$ ]]; then
  echo "usage: launch/local_cpu.sh [--dry-run] [PROCESSESx]DEVICES FLAGS…, see --help" >&2
  exit 2
fi
processes=${BASH_REMATCH[2]:-1} devices=${BASH_REMATCH[3]}
shift
eagle=${EAGLE_JAX:-$(dirname "$0")/../.venv/bin/eagle-jax}
if [[ ! -x $eagle && $dry_run == off ]] && ! eagle=$(command -v eagle-jax); then
  echo "local_cpu.sh: eagle-jax is not installed: make venv" >&2
  exit 2
fi
command=("$eagle" train "--devices=$devices")

if ((processes == 1)); then
  if [[ $dry_run == on ]]; then
    printf '%q ' "${command[@]}" "$@" && echo && exit
  fi
  exec "${command[@]}" "$@"
fi

workdir='' previous=''
for argument in "$@"; do
  case $argument in --workdir=*) workdir=${argument#*=} ;; esac
  [[ $previous != --workdir ]] || workdir=$argument
  previous=$argument
done
if [[ -z $workdir || $workdir == *://* ]]; then
  echo "local_cpu.sh: several processes need --workdir=DIR on this machine, for their logs" >&2
  exit 2
fi
logs=$workdir/logs

port=$(python3 -c 'import socket; s = socket.socket(); s.bind(("", 0)); print(s.getsockname()[1])')
command+=("--coordinator=127.0.0.1:$port" "--processes=$processes")

if [[ $dry_run == on ]]; then
  for ((k = 0; k < processes; k++)); do
    printf '%q ' "${command[@]}" "--process=$k" "$@"
    printf '>%q 2>&1\n' "$logs/process_$k.log"
  done
  exit
fi

# Through a pipe, so that the last line of process 0 is out before this script ends.
mkdir -p "$logs"
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT
mkfifo "$scratch/shown"
tee "$logs/process_0.log" <"$scratch/shown" &
shown=$!
children=() stopping=off
forward() { # SIGNAL, to those that still run
  local k # the trap comes amid the loops below
  for k in "${!children[@]}"; do
    kill "-$1" "${children[k]}" 2>/dev/null || true
  done
}
trap 'stopping=on; forward TERM' TERM INT
for ((n = 0; n < processes; n++)); do
  if ((n == 0)); then output=$scratch/shown; else output=$logs/process_$n.log; fi
  "${command[@]}" "--process=$n" "$@" >"$output" 2>&1 &
  children+=("$!")
done
[[ $stopping == off ]] || forward TERM # those that started after the signal

first=0 deadline=''
while ((${#children[@]})); do
  for k in "${!children[@]}"; do
    kill -0 "${children[k]}" 2>/dev/null && continue
    code=0
    wait "${children[k]}" || code=$?
    unset "children[k]"
    if ((code != 0 && first == 0)); then
      first=$code deadline=$((SECONDS + ${EAGLE_LEAVE_SECONDS:-$((code == 42 ? 120 : 10))}))
      signal=$( ((code > 128)) && kill -l $((code - 128)) 2>/dev/null) || signal=''
      echo "local_cpu.sh: process $k ended with $code${signal:+ (SIG$signal)};" \
        "its log: $logs/process_$k.log" >&2
    fi
  done
  if [[ -n $deadline ]] && ((SECONDS > deadline)); then
    echo "local_cpu.sh: process ${!children[*]} did not leave: ended" >&2
    forward KILL
    deadline=''
  fi
  sleep 0.2
done
wait "$shown" || true
exit "$first"
