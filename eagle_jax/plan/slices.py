"""Slices of TPU pods by the names their users give them, and what a chip of each can do."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

from eagle_jax.errors import EagleError
from eagle_jax.registry import lookup


@dataclasses.dataclass(frozen=True, kw_only=True)
class Chip:
  """One generation of chips.

  Attributes:
    flops: peak of bfloat16 products, per second.
    memory: bytes of HBM.
    memory_rate: bytes of HBM per second.
    link_rate: bytes per second to one neighbour, one way.
    links: neighbours.
    cores: by which its slices are named: 2 where the name counts cores, 1 where chips.
    slice_rate: bytes per second to chips of other slices, one way.
    options: what the compiler must know besides the topology.
  """

  flops: float
  memory: int
  memory_rate: float
  link_rate: float
  links: int
  cores: int
  slice_rate: float
  options: Mapping[str, Any] = dataclasses.field(default_factory=dict)

  @property
  def send_rate(self) -> float:
    """Bytes per second over all links of a chip, one way."""
    return self.links * self.link_rate


GIB = 2**30

CHIPS: Mapping[str, Chip] = {
  # Source: the pages of each generation in Google Cloud's documentation of TPUs; links as
  # in the scaling book of jax-ml, tpus.md.
  "v4": Chip(
    flops=275e12,
    memory=32 * GIB,
    memory_rate=1.2e12,
    link_rate=45e9,
    links=6,
    cores=2,
    slice_rate=6.25e9,
    options={"chip_config_name": "megacore", "chips_per_host_bounds": (2, 2, 1)},
  ),
  "v5e": Chip(
    flops=197e12,
    memory=16 * GIB,
    memory_rate=0.82e12,
    link_rate=50e9,
    links=4,
    cores=1,
    slice_rate=3.125e9,
  ),
  "v5p": Chip(
    flops=459e12,
    memory=95 * GIB,
    memory_rate=2.77e12,
    link_rate=100e9,
    links=6,
    cores=2,
    slice_rate=6.25e9,
  ),
  "v6e": Chip(
    flops=918e12,
    memory=32 * GIB,
    memory_rate=1.6e12,
    link_rate=100e9,
    links=4,
    cores=1,
    slice_rate=12.5e9,
  ),
}

FLAT: Mapping[int, str] = {
  4: "2x2",
  8: "2x4",
  16: "4x4",
  32: "4x8",
  64: "8x8",
  128: "8x16",
  256: "16x16",
}
CUBIC: Mapping[int, str] = {
  4: "2x2x1",
  8: "2x2x2",
  16: "2x2x4",
  32: "2x4x4",
  64: "4x4x4",
  128: "4x4x8",
  256: "4x8x8",
  512: "8x8x8",
}
"""Chips → how they are wired."""


@dataclasses.dataclass(frozen=True)
class Slice:
  """So many chips of one generation, wired as they are sold.

  Attributes:
    name: as given, "v5e-256".
    topology: the compiler's name, "v5e:16x16".
    chips: how many, of all slices.
    chip: what each can do.
    count: of such slices, joined by the data centre's network.
  """

  name: str
  topology: str
  chips: int
  chip: Chip
  count: int = 1

  def __str__(self) -> str:
    """As in "v5e-256" or "2 × v5e-256"."""
    return self.name if self.count == 1 else f"{self.count} × {self.name}"


def parse(name: str, count: int = 1) -> Slice:
  """Returns the slice of a name such as v5e-256 (chips) or v4-128 (cores: 64 chips).

  Args:
    name: of one slice.
    count: of slices.

  Raises:
    EagleError: for a generation or a size that there is not, naming the nearest.
  """
  generation, dash, number = name.partition("-")
  chip = lookup(CHIPS, generation, what="TPU generation")
  wired = FLAT if chip.links == 4 else CUBIC
  sizes = {str(count * chip.cores): count for count in wired}
  if not dash:
    raise EagleError(f"a slice is a generation and a size, as {name}-{next(iter(sizes))}: {name!r}")
  chips = lookup(sizes, number, what=f"size of {generation}")
  return Slice(name, f"{generation}:{wired[chips]}", chips * count, chip, count)
