#!/usr/bin/env bash
# Trains on queued resources: spot machines, and several slices.
#
#   launch/queued.sh train --name=eagle --zone=europe-west4-b --accelerator=v5litepod-256 \
#     --runtime=v2-alpha-tpuv5-lite --spot --slices=2 --env-file=secrets.env -- \
#     train --config=eagle_x5_vicuna_7b:finetune --workdir=/mnt/eagle/run …
#
# `train` requests the machines, waits in the queue, installs, starts every worker of every
# slice, and waits; where machines are taken away it deletes the request, makes a new one and
# goes on, until the training is done. The same command goes on where it was interrupted. It
# leaves the machines: delete them. Its steps are verbs of their own:
#
#   create   setup   start   status   logs   stop   delete
#
#   --name --zone [--project]   the request; a slice is named like it, several NAME-0, NAME-1, …
#   --accelerator --runtime     what to create, as `gcloud compute tpus queued-resources create`
#                               names it
#   --slices 1                  joined over the data-centre network
#   --spot | --reserved         machines that may be taken away; of a reservation
#   --valid-until 6h            the longest wait in the queue
#   --env-file FILE             NAME=value lines for the trainer's environment, mode 600
#   --restarts 3                after crashes; --preemptions 100 after preemptions;
#   --attempts 10               requests in a row for machines, and polls without an answer
#   --worker 0                  of the first slice, whose log `logs` shows
#   --dry-run                   prints every command and runs none
#
# Exit codes: 0 done, 43 a mistake in the config or data, 1 given up, 2 a mistake in the flags.
# shellcheck source-path=SCRIPTDIR
source "$(dirname "${BASH_SOURCE[0]}")/base.sh"
flags=([reserved]=off [valid-until]='')
source "$launch/tpu.sh"

group=(gcloud compute tpus queued-resources)
every=(--worker=all --node=all)
delete_flags=(--force --quiet)
state_field=state.state
ready=ACTIVE

machines() {
  create_flags=("--runtime-version=${flags[runtime]}")
  if ((flags[slices] == 1)); then
    create_flags+=("--node-id=${flags[name]}")
  else
    create_flags+=("--node-count=${flags[slices]}")
  fi
  [[ ${flags[spot]} == off || ${flags[reserved]} == off ]] ||
    fail "--spot and --reserved exclude each other"
  [[ ${flags[spot]} == off ]] || create_flags+=(--spot)
  [[ ${flags[reserved]} == off ]] || create_flags+=(--reserved)
  [[ -z ${flags[valid-until]} ]] || create_flags+=("--valid-until-duration=${flags[valid-until]}")
}

main "$@"
