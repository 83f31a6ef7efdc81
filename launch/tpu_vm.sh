#!/usr/bin/env bash
# Trains on a TPU VM of one slice, all of its workers.
#
#   launch/tpu_vm.sh train --name=eagle --zone=us-central2-b --accelerator=v4-128 \
#     --runtime=tpu-ubuntu2204-base --env-file=secrets.env -- \
#     train --config=eagle_x5_vicuna_7b:finetune --workdir=/mnt/eagle/run …
#
# `train` creates the machines where they are absent, installs, starts every worker, waits, and
# starts again after a preemption, until the training is done; the same command goes on where it
# was interrupted. It leaves the machines: delete them. Its steps are verbs of their own:
#
#   create   setup   start   status   logs   stop   delete
#
#   --name --zone [--project]   the machines
#   --accelerator --runtime     what to create, as `gcloud compute tpus tpu-vm create` names it
#   --spot                      machines that may be taken away
#   --env-file FILE             NAME=value lines for the trainer's environment, mode 600
#   --restarts 3                after crashes; --preemptions 100 after preemptions;
#   --attempts 10               requests for machines, and polls without an answer
#   --worker 0                  whose log `logs` shows
#   --dry-run                   prints every command and runs none
#
# Exit codes: 0 done, 43 a mistake in the config or data, 1 given up, 2 a mistake in the flags.
# shellcheck source-path=SCRIPTDIR
source "$(dirname "${BASH_SOURCE[0]}")/base.sh"
source "$launch/tpu.sh"

group=(gcloud compute tpus tpu-vm)
every=(--worker=all)
delete_flags=(--quiet)
state_field=state
ready=READY

machines() {
  ((flags[slices] == 1)) || fail "a TPU VM is one slice, --slices is ${flags[slices]}: queued.sh"
  create_flags=("--version=${flags[runtime]}")
  [[ ${flags[spot]} == off ]] || create_flags+=(--spot)
}

main "$@"
