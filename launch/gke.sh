#!/usr/bin/env bash
# Trains on TPU slices of GKE, as a JobSet.
#
#   launch/gke.sh secret --name=eagle --env-file=secrets.env
#   launch/gke.sh apply --name=eagle --image=europe-docker.pkg.dev/project/repo/eagle:1 \
#     --accelerator=tpu-v5-lite-podslice --topology=16x16 --slices=2 --secret=eagle-env --claim=eagle -- \
#     train --config=eagle_x5_vicuna_7b:finetune --workdir=/mnt/eagle/run …
#
#   secret   makes the Secret NAME-env of the lines NAME=value of --env-file
#   render   prints the manifest
#   apply    gives it to the cluster; what is there already stays as it is
#   wait     until the JobSet has completed or failed
#   status   prints Running, Completed or Failed, and restarts so far
#   logs     follows the first host of the first slice
#   delete   JobSet and pods
#
#   --name --namespace default
#   --image                     of launch/Dockerfile
#   --accelerator --topology    the labels of the node pools; --chips-per-host 4
#   --slices 1                  node pools of that topology, joined over the data-centre network
#   --spot                      nodes that may be taken away
#   --secret NAME               whose entries become environment variables
#   --claim NAME                PersistentVolumeClaim that every host sees at /mnt/eagle: for records,
#                               pictures and the run's folder
#   --account NAME              service account of the cluster
#   --restarts 3                after crashes; after preemptions always
#   --grace 600                 seconds between SIGTERM and SIGKILL
#   --dry-run                   prints every command and runs none
#
# The cluster needs JobSet 0.10 or newer. Exit codes of wait: 0 completed, 43 failed by a mistake
# in the config or data, 1 failed otherwise.
# shellcheck source-path=SCRIPTDIR
source "$(dirname "${BASH_SOURCE[0]}")/base.sh"

flags=(
  [name]='' [namespace]=default [image]='' [accelerator]='' [topology]='' [chips-per-host]=4
  [slices]=1 [spot]=off [secret]='' [claim]='' [account]='' [restarts]=3 [grace]=600 [env-file]=''
)

# hosts: of a slice, chips of the topology divided by chips per host.
hosts() {
  local chips each=${flags[chips-per-host]}
  chips=$((${flags[topology]//x/*}))
  ((chips % each == 0)) ||
    fail "--topology ${flags[topology]} has $chips chips, --chips-per-host $each does not divide them"
  echo $((chips / each))
}

render() {
  local spot=false count name=${flags[name]}
  need image accelerator topology
  match '[1-9][0-9]*x[1-9][0-9]*(x[1-9][0-9]*)?' topology
  match "$count_pattern" chips-per-host slices grace
  match '[0-9]{1,6}' restarts
  need_trainer
  [[ ${trainer[*]} != *\$\(* ]] || fail "Kubernetes would expand '\$(…)' in an argument"
  [[ ${flags[spot]} == off ]] || spot=true
  count=$(hosts)
  python3 "$launch/template.py" "$launch/jobset.yaml" name="$name" "image=${flags[image]}" \
    "accelerator=${flags[accelerator]}" "topology=${flags[topology]}" "hosts:=$count" \
    "chips:=${flags[chips-per-host]}" "slices:=${flags[slices]}" "spot:=$spot" \
    "secret=${flags[secret]}" "claim=${flags[claim]}" "account=${flags[account]}" "restarts:=${flags[restarts]}" \
    "grace:=${flags[grace]}" "coordinator=$name-slice-0-0.$name" arguments@= -- \
    exec "--slices=${flags[slices]}" -- "${trainer[@]}"
}

apply() {
  local manifest
  manifest=$(render)
  run kubectl "${where[@]}" apply --filename=- <<<"$manifest"
}

secret() {
  local manifest
  need env-file
  check_env_file
  manifest=$(run kubectl "${where[@]}" create secret generic "${flags[name]}-env" \
    "--from-env-file=${flags[env-file]}" --dry-run=client --output=yaml)
  run kubectl "${where[@]}" apply --filename=- <<<"$manifest"
}

# field ASSUMED JSONPATH: of the JobSet.
field() {
  ask "$1" run kubectl "${where[@]}" get jobset "${flags[name]}" "--output=jsonpath=$2"
}

status() {
  local end
  end=$(field '' '{.status.terminalState}')
  echo "${end:-Running} after $(field 0 '{.status.restarts}') restarts"
}

wait_for_end() {
  local end unheard=0
  while :; do
    if end=$(field Completed '{.status.terminalState}'); then
      unheard=0
    else
      ((++unheard < 10)) || fail "kubectl cannot tell the state of '${flags[name]}'"
    fi
    case $end in
      Completed) return 0 ;;
      Failed)
        end=$(field '' '{.status.conditions[?(@.type=="Failed")].reason}')
        note "'${flags[name]}' failed: $end"
        [[ $end != FailJobSetFailurePolicyAction ]] || return 43 # of the one rule that fails it
        return 1
        ;;
    esac
    pause
  done
}

verb=${1:---help}
[[ $verb != --help && $verb != -h ]] || { usage && exit 0; }
shift
read_flags "$@"
need name namespace
match "$name_pattern" name
where=("--namespace=${flags[namespace]}")
case $verb in
  render | apply | secret | status) "$verb" ;;
  wait) wait_for_end ;;
  logs)
    run kubectl "${where[@]}" logs --follow --container=trainer "--selector=$(
      printf 'jobset.sigs.k8s.io/jobset-name=%s,jobset.sigs.k8s.io/job-index=0,' "${flags[name]}"
    )batch.kubernetes.io/job-completion-index=0"
    ;;
  delete) run kubectl "${where[@]}" delete jobset "${flags[name]}" --ignore-not-found ;;
  *) fail "has no verb '$verb'. Verbs: secret render apply wait status logs delete" ;;
esac
