#!/usr/bin/env bash
# Trains as a managed job of SkyPilot (PyPI: skypilot), on one slice.
#
#   launch/sky.sh launch --name=eagle --accelerator=tpu-v5litepod-256 \
#     --runtime=v2-alpha-tpuv5-lite --spot --env-file=secrets.env -- \
#     train --config=eagle_x5_vicuna_7b:finetune --workdir=/mnt/eagle/run …
#
#   launch   the job   render   prints its YAML   logs   follows it   cancel   the job
#
#   --name --accelerator --runtime
#   --spot                      machines that may be taken away
#   --env-file FILE             NAME=value lines, mode 600, given to SkyPilot as secrets
#   --dry-run                   prints every command and runs none
# shellcheck source-path=SCRIPTDIR
source "$(dirname "${BASH_SOURCE[0]}")/base.sh"

flags=([name]='' [accelerator]='' [runtime]='' [spot]=off [env-file]='')

render() {
  local spot=false
  need accelerator runtime
  check_env_file
  need_trainer
  [[ ${flags[spot]} == off ]] || spot=true
  python3 "$launch/template.py" "$launch/sky.yaml" "name=${flags[name]}" \
    "accelerator=${flags[accelerator]}:1" "runtime=${flags[runtime]}" "spot:=$spot" \
    "run=launch/worker.sh exec -- $(quoted "${trainer[@]}")"
}

launch_job() {
  local manifest file=$root/runs/launch/${flags[name]}.yaml secrets=()
  manifest=$(render)
  [[ -z ${flags[env-file]} ]] || secrets=("--secret-file=$(realpath "${flags[env-file]}")")
  if [[ $dry_run == off ]]; then
    mkdir -p "${file%/*}"
    printf '%s\n' "$manifest" >"$file"
  fi
  cd "$root" # the workdir that SkyPilot uploads
  run sky jobs launch "--name=${flags[name]}" --yes --detach-run "${secrets[@]}" "$file"
}

verb=${1:---help}
[[ $verb != --help && $verb != -h ]] || { usage && exit 0; }
shift
read_flags "$@"
need name
match "$name_pattern" name
case $verb in
  launch) launch_job ;;
  render) render ;;
  logs) run sky jobs logs "--name=${flags[name]}" ;;
  cancel) run sky jobs cancel "--name=${flags[name]}" --yes ;;
  *) fail "has no verb '$verb'. Verbs: launch render logs cancel" ;;
esac
