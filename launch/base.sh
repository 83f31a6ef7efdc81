# shellcheck shell=bash
# What the scripts of this folder share: errors, flags, running or only printing commands.
#
# A script fills the associative array `flags` with names and defaults ('off' makes a switch)
# and calls `read_flags "$@"`: values are then in `flags`, what follows `--` in `trainer`.
# The comment at the top of a script is its --help.

set -euo pipefail
if ((BASH_VERSINFO[0] * 100 + BASH_VERSINFO[1] < 403)); then
  echo "${0##*/}: needs bash 4.3 or newer, this is $BASH_VERSION" >&2
  exit 2
fi

launch=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
root=$(dirname "$launch")
declare -A flags
trainer=()
dry_run=off
mistake=2 # exit code of `fail`
poll_seconds=${EAGLE_POLL_SECONDS:-30} # between two looks at something that takes its time
exec 3>&1                              # commands of a dry run, even where output is captured

# fail MESSAGE: for what the caller can put right.
fail() {
  printf '%s: %s\n' "${0##*/}" "$*" >&2
  exit "$mistake"
}

# note MESSAGE: one line about what happens, with the time.
note() {
  [[ $dry_run == on ]] || printf '%(%F %T)T %s: %s\n' -1 "${0##*/}" "$*" >&2
}

usage() {
  sed -n '2,/^[^#]/{/shellcheck/d;s/^# \{0,1\}//p}' "$0"
}

# read_flags ARGUMENT…: `--name=value`, `--name value`, `--switch`, `-- TRAINER ARGUMENTS`.
read_flags() {
  local name value
  while (($#)); do
    case $1 in
      --help | -h) usage && exit 0 ;;
      --dry-run) dry_run=on ;;
      --) shift && trainer=("$@") && return ;;
      --*)
        name=${1%%=*}
        name=${name#--}
        [[ $name =~ ^[a-z][a-z-]*$ && -v flags[$name] ]] ||
          fail "has no flag '$1'. Flags:$(printf ' --%s\n' dry-run "${!flags[@]}" | sort | tr -d '\n')"
        if [[ ${flags[$name]} =~ ^(on|off)$ ]]; then
          [[ $1 != *=* ]] || fail "--$name is a switch, it takes no value"
          value=on
        elif [[ $1 == *=* ]]; then
          value=${1#*=}
        else
          (($# > 1)) || fail "--$name needs a value"
          shift && value=$1
        fi
        flags[$name]=$value
        ;;
      *) fail "takes no argument '$1' here; what is for the trainer follows --" ;;
    esac
    shift
  done
}

# need NAME…: each flag must have a value.
need() {
  local name
  for name in "$@"; do
    [[ -n ${flags[$name]} ]] || fail "--$name is missing (see --help)"
  done
}

# match PATTERN NAME…: the value of each flag must match the regular expression as a whole.
match() {
  local pattern=$1 name
  shift
  for name in "$@"; do
    [[ ${flags[$name]} =~ ^($pattern)$ ]] ||
      fail "--$name must look like $pattern, it is '${flags[$name]}'"
  done
}

name_pattern='[a-z]([-a-z0-9]{0,38}[a-z0-9])?' # of machines and jobs; suffixes must fit too
count_pattern='[1-9][0-9]{0,5}'

# need_trainer: what follows -- is a verb of eagle-jax; `train` says where the run is.
need_trainer() {
  ((${#trainer[@]})) || fail "what is to run follows --, as in: -- train --config=… --workdir=/mnt/…"
  [[ ${trainer[0]} != -* ]] || fail "after -- comes a verb of eagle-jax, not '${trainer[0]}'"
  [[ ${trainer[0]} != train || " ${trainer[*]}" == *" --workdir="* ]] ||
    fail "train needs --workdir=DIR: a restart goes on from there"
  forbid_secrets
}

# forbid_secrets: arguments are seen by every user of a machine; no secret may be among them.
# Known are the values of --env-file and of variables whose name says what they hold.
forbid_secrets() {
  local line
  while IFS= read -r line; do
    [[ $line =~ ^[A-Za-z_][A-Za-z0-9_]*=(.{8,})$ ]] || continue
    [[ "${trainer[*]}" != *"${BASH_REMATCH[1]}"* ]] ||
      fail "an argument holds the value of ${line%%=*}: pass it in --env-file"
  done < <(
    env | grep -E '^[A-Z0-9_]*(TOKEN|API_KEY|SECRET|PASSWORD)[A-Z0-9_]*=' || true
    [[ ! -r ${flags[env-file]:-} ]] || cat "${flags[env-file]}"
  )
}

# check_env_file: --env-file, where given, holds NAME=value lines and is its owner's alone.
check_env_file() {
  local file=${flags[env-file]} mode
  [[ -n $file ]] || return 0
  [[ -r $file ]] || fail "--env-file '$file' cannot be read"
  mode=$(stat -c %a "$file")
  [[ $mode == ?00 ]] || fail "--env-file '$file' holds secrets but has mode $mode: chmod 600 it"
  grep -vqE '^([A-Za-z_][A-Za-z0-9_]*=.*|#.*|)$' "$file" &&
    fail "--env-file '$file' must hold lines NAME=value; line" \
      "$(grep -nvE '^([A-Za-z_][A-Za-z0-9_]*=.*|#.*|)$' "$file" | head -1 | cut -d: -f1) is none"
  return 0
}

# quoted WORD…: the words as a shell reads them back.
quoted() {
  local words
  printf -v words ' %q' "$@"
  printf '%s' "${words:1}"
}

# run COMMAND…: runs it, or prints it in a dry run.
run() {
  if [[ $dry_run == on ]]; then
    quoted "$@" >&3
    echo >&3
  else
    "$@"
  fi
}

# ask ASSUMED FUNCTION…: the output of a function that calls `run`; in a dry run what is assumed.
ask() {
  local assumed=$1
  shift
  "$@" || return
  [[ $dry_run == off ]] || printf '%s\n' "$assumed"
}

# pause [TIMES]: waits the poll interval, or so many times it.
pause() {
  [[ $dry_run == on ]] || sleep $((poll_seconds * ${1:-1}))
}
