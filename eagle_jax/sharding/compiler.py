"""What the compiler is told of a program for many devices: options by platform, as one table."""

from __future__ import annotations

from collections.abc import Mapping

import jax

OPTIONS: Mapping[str, Mapping[str, str]] = {
  "tpu": {
    # Parameters are gathered while the layer before is computed. Without these v4 and v5p,
    # whose links are a torus of three dimensions, sum zeros and shares instead: twice the
    # bytes, and nothing else goes on meanwhile (docs/plan.md).
    "xla_enable_async_all_gather": "true",
    "xla_tpu_prefer_async_allgather_to_allreduce": "true",
    "xla_tpu_enable_async_collective_fusion": "true",
    "xla_tpu_enable_async_collective_fusion_fuse_all_gather": "true",
    # A parameter that is gathered to compute a block again stays for its gradients, however
    # many operations lie in between.
    "xla_tpu_spmd_threshold_for_allgather_cse": "1000000",
  },
}
"""Platform → option → value. Source: pull request 6528 of pytorch/xla; MaxText's run scripts."""


def options(mesh: jax.sharding.Mesh) -> dict[str, str]:
  """Returns the options of programs for the devices of `mesh`; none where none are needed."""
  return dict(OPTIONS.get(mesh.devices.flat[0].platform, {}))
