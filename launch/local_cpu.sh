#!/usr/bin/env bash
# Trains one stage on emulated devices of this machine's CPU, to try a mesh before renting one.
#
#   launch/local_cpu.sh 8 --config=debug:finetune --workdir=runs/debug \
#     --config.mesh.data=2 --config.mesh.fsdp=2 --config.mesh.tensor=2 …
set -euo pipefail

if [[ $# -lt 2 || ! $1 =~ ^[1-9][0-9]*$ ]]; then
  echo "usage: launch/local_cpu.sh DEVICES FLAGS…, FLAGS as for eagle-jax train" >&2
  exit 2
fi
devices=$1
shift
exec "$(dirname "$0")/../.venv/bin/eagle-jax" train --devices="$devices" "$@"
