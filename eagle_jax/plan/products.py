"""Floating-point operations of a compiled program, two per multiply and add, from its text.

Only products and convolutions count. Those of the model as it is written are counted by
`train.traced`.
"""

from __future__ import annotations

import math
import re

from eagle_jax.plan import hlo

LABELS = re.compile(r"dim_labels=(\w+)_(\w+)->(\w+)")


def of_program(program: hlo.Program) -> int:
  """Returns the operations that each device does in a step of a compiled program.

  Kernels written by hand are not counted: their text is not part of the program.
  """
  total = 0
  for visit in hlo.visits(program):
    named = visit.computation.instructions
    for instruction in named.values():
      if instruction.opcode in ("dot", "convolution"):
        left, right = (hlo.shapes(named[name].shape)[0][1] for name in instruction.operands)
        out = hlo.shapes(instruction.shape)[0][1]
        count = _dot if instruction.opcode == "dot" else _convolution
        total += visit.times * count(instruction.attributes, (left, right, out))
  return total


def _dot(attributes: str, sides: tuple[tuple[int, ...], ...]) -> int:
  """Operations of a product of arrays [..., n] whose shapes, and the result's, are given."""
  found = re.search(r"lhs_contracting_dims=\{([\d,]*)\}", attributes)
  axes = [int(axis) for axis in found[1].split(",") if axis] if found else []
  return 2 * math.prod(sides[2]) * math.prod(sides[0][axis] for axis in axes)


def _convolution(attributes: str, sides: tuple[tuple[int, ...], ...]) -> int:
  """Operations of a convolution, which on TPU every product is.

  Cells of padding and zeros put between cells are not multiplied. Source: XLA,
  hlo_cost_analysis.cc, HandleConvolution.
  """
  left, right, out = sides
  labels = LABELS.search(attributes)
  if labels is None:
    raise ValueError(f"a convolution without dim_labels: {attributes[:80]}")
  of_left, of_right, of_out = labels.groups()
  window = _window(attributes, sum(label.isdigit() for label in of_out))
  groups = _number(attributes, "feature_group_count")
  batches = left[of_left.index("b")] // _number(attributes, "batch_group_count")
  channels = left[of_left.index("f")] // groups
  products = 2 * batches * channels * right[of_right.index("o")]
  for n, (stride, before, base, dilation) in enumerate(window):
    products *= _hits(
      cells=left[of_left.index(str(n))],
      size=right[of_right.index(str(n))],
      out=out[of_out.index(str(n))],
      steps=(stride, before, base, dilation),
    )
  return products


def _hits(*, cells: int, size: int, out: int, steps: tuple[int, int, int, int]) -> int:
  """Pairs of output cell and kernel cell that meet a cell of the input, along one axis."""
  stride, before, base, dilation = steps
  last = (cells - 1) * base
  hits = 0
  for k in range(size):
    first = k * dilation - before
    # The output cells o for which first + o·stride lies within [0, last] on the input's grid.
    low = max(0, -(first // stride))
    high = min(out - 1, (last - first) // stride)
    if high < low:
      continue
    if base == 1:
      hits += high - low + 1
    else:
      hits += sum((first + o * stride) % base == 0 for o in range(low, high + 1))
  return hits


def _window(attributes: str, axes: int) -> list[tuple[int, int, int, int]]:
  """Returns stride, cells of padding before, base and kernel dilation of each spatial axis."""
  found = re.search(r"window=\{([^}]*)\}", attributes)
  fields = dict(part.split("=") for part in found[1].split()) if found else {}

  def read(name: str, default: str) -> list[int]:
    """Reads one field, one number per axis."""
    given = fields[name].split("x") if name in fields else [default] * axes
    return [int(number.split("_")[0]) for number in given]

  return list(
    zip(
      read("stride", "1"),
      read("pad", "0_0"),
      read("lhs_dilate", "1"),
      read("rhs_dilate", "1"),
      strict=True,
    )
  )


def _number(attributes: str, name: str) -> int:
  """Returns a whole number among the attributes, 1 where it is not given."""
  found = re.search(rf"{name}=(\d+)", attributes)
  return int(found[1]) if found else 1
