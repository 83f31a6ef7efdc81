#!/usr/bin/env bash
# Trains on an XPK cluster (PyPI: xpk).
#
#   launch/xpk.sh create --name=eagle --cluster=pods --zone=europe-west4-b --project=project \
#     --accelerator=v5litepod-256 --slices=2 --image=europe-docker.pkg.dev/project/repo/eagle:1 -- \
#     train --config=eagle_x5_vicuna_7b:finetune --workdir=/mnt/eagle/run …
#
#   create   the workload   list   what the cluster runs   delete   the workload
#
#   --name --cluster --zone --project
#   --accelerator               as xpk's --tpu-type names it; --slices 1
#   --image                     of launch/Dockerfile
#   --env-file FILE             NAME=value lines, mode 600. XPK writes them into the workload's
#                               manifest, where whoever may read it sees them: for secrets rather
#                               use gke.sh
#   --restarts 100              XPK counts preemptions among them
#   --grace 600                 seconds between SIGTERM and SIGKILL
#   --spot                      nodes that may be taken away
#   --dry-run                   prints every command and runs none
# shellcheck source-path=SCRIPTDIR
source "$(dirname "${BASH_SOURCE[0]}")/base.sh"

flags=(
  [name]='' [cluster]='' [zone]='' [project]='' [accelerator]='' [slices]=1 [image]=''
  [env-file]='' [restarts]=100 [grace]=600 [spot]=off
)

create() {
  local more=()
  need accelerator image
  match "$count_pattern" slices restarts grace
  check_env_file
  need_trainer
  [[ -z ${flags[env-file]} ]] || more+=("--env-file=${flags[env-file]}")
  [[ ${flags[spot]} == off ]] || more+=(--spot)
  # XPK restarts after 42 and 127 to 255 of itself; 43 alone must not be among the others.
  run xpk workload create "--workload=${flags[name]}" "${where[@]}" \
    "--tpu-type=${flags[accelerator]}" "--num-slices=${flags[slices]}" \
    "--docker-image=${flags[image]}" "--max-restarts=${flags[restarts]}" \
    --restart-on-exit-codes=1-41,44-126 "--termination-grace-period-seconds=${flags[grace]}" \
    "${more[@]}" \
    "--command=/opt/eagle_jax/launch/worker.sh exec --slices=${flags[slices]} -- $(quoted "${trainer[@]}")"
}

verb=${1:---help}
[[ $verb != --help && $verb != -h ]] || { usage && exit 0; }
shift
read_flags "$@"
need cluster zone project
where=("--cluster=${flags[cluster]}" "--zone=${flags[zone]}" "--project=${flags[project]}")
[[ $verb == list ]] || { need name && match "$name_pattern" name; }
case $verb in
  create) create ;;
  list) run xpk workload list "${where[@]}" ;;
  delete) run xpk workload delete "--workload=${flags[name]}" "${where[@]}" --force ;;
  *) fail "has no verb '$verb'. Verbs: create list delete" ;;
esac
