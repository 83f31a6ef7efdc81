"""The axes of every mesh, and how many devices lie along each."""

from __future__ import annotations

import math

from eagle_jax import config
from eagle_jax.errors import EagleError

AXES = ("data", "fsdp", "tensor", "sequence")


def sizes(settings: config.Mesh, devices: int) -> dict[str, int]:
  """Returns axis → devices along it, in the order of `AXES`.

  Args:
    settings: devices per axis; -1 takes what the others leave.
    devices: how many there are.

  Raises:
    EagleError: if the product of the axes is not the device count.
  """
  found = {axis: getattr(settings, axis) for axis in AXES}
  rest = -math.prod(found.values())
  filled = {axis: devices // rest if side == -1 else side for axis, side in found.items()}
  if math.prod(filled.values()) != devices:
    asked = ", ".join(f"{axis}={side}" for axis, side in found.items())
    raise EagleError(
      f"the mesh axes must multiply to the device count: {asked} and {devices} devices "
      "(config field 'mesh'; --devices N emulates N devices on a CPU)"
    )
  return filled
