"""Stacks whose blocks alternate in kind, as scans within a scan.

Each run of equal blocks is one `layers.stack`, and the repeated unit of the layout is
another around its runs, so a stack compiles once per kind and run whatever its depth.
"""

from __future__ import annotations

import typing
from collections.abc import Mapping
from typing import Any

import flax.linen as nn

from eagle_jax.nn.layers import stack
from eagle_jax.nn.layout import Layout, Run

if typing.TYPE_CHECKING:
  from jax.typing import DTypeLike
  from jaxtyping import Array, Float


class Blocks(typing.NamedTuple):
  """What the blocks of a stack have in common.

  Attributes:
    module: built as `module(kind, size, dtype, name=…)`, called as `block(x, operand)`;
      gives `(y, None)` with y like x, and sows y as probe `block`.
    size: what the blocks read their widths from.
    dtype: of computation.
    remat: one of `remat.POLICIES`.
  """

  module: type[nn.Module]
  size: Any
  dtype: DTypeLike
  remat: str


class Runs(nn.Module):
  """Runs of equal blocks in a row, `run_0`, `run_1`, ….

  Attributes:
    runs: kinds and lengths, in order.
    blocks: what they are made of.
  """

  runs: tuple[Run, ...]
  blocks: Blocks

  @nn.compact
  def __call__(
    self, x: Float[Array, "B H W C"], operands: Mapping[str, Any]
  ) -> tuple[Float[Array, "B H W C"], None]:
    """Applies every block of every run; the None makes a step of a scan of it."""
    module, size, dtype, remat = self.blocks
    for number, run in enumerate(self.runs):
      scanned = stack(module, run.length, remat=remat)
      x, _ = scanned(run.kind, size, dtype, name=f"run_{number}")(x, operands.get(run.kind))
    return x, None


def apply_blocks(
  layout: Layout,
  blocks: Blocks,
  x: Float[Array, "B H W C"],
  *,
  operands: Mapping[str, Any] | None = None,
) -> Float[Array, "B H W C"]:
  """Applies a stack of blocks, from within the compact method of a module.

  The stacked parameters, `groups` and `rest` (see layout.py), lie straight under that
  module.

  Args:
    layout: the kind of each block.
    blocks: what they are made of.
    x: input of the first block.
    operands: second argument of the blocks of each kind, any tree of arrays: what all of
      them share, such as rotary tables, is computed once. Kinds without one get None.

  Returns:
    The output of the last block.
  """
  given = dict(operands or {})
  x, _ = stack(Runs, layout.count, remat="none")(layout.unit, blocks, name="groups")(x, given)
  if layout.rest:
    x, _ = Runs(layout.rest, blocks, name="rest")(x, given)
  return x


def block_output(probes: Mapping[str, Any], layout: Layout, n: int) -> Float[Array, "B H W C"]:
  """Looks up what block n gave.

  Args:
    probes: the "probes" collection of the module that called `apply_blocks`.
    layout: the layout it was called with.
    n: number of the block, from 0.
  """
  path, index = layout.probe(n)
  found: Any = probes
  for name in path.split("/"):
    found = found[name]
  return found[0][index]
