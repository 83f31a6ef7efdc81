"""Floating-point operations of products and convolutions, two per multiply and add.

Counted twice: as the model is written, from the traced step, and as it was compiled, from
the program's text. The compiler's own figure is of no use: it counts a loop's body once.
"""

from __future__ import annotations

import math
import re
import typing
from collections.abc import Iterator, Mapping
from typing import Any

from eagle_jax.plan import hlo

if typing.TYPE_CHECKING:
  from jax.extend.core import ClosedJaxpr, Jaxpr

LABELS = re.compile(r"dim_labels=(\w+)_(\w+)->(\w+)")


def of_trace(traced: ClosedJaxpr) -> int:
  """Returns the operations of a traced function, loops multiplied out.

  Of a conditional the costliest branch counts; a `while` without a fixed length counts once.
  """
  return _of_jaxpr(traced.jaxpr)


def _of_jaxpr(jaxpr: Jaxpr) -> int:
  """Sums over the equations of a trace."""
  total = 0
  for equation in jaxpr.eqns:
    name, params = equation.primitive.name, equation.params
    if name == "dot_general":
      left = _shape(equation.invars[0])
      contracted = math.prod(left[axis] for axis in params["dimension_numbers"][0][0])
      total += 2 * math.prod(_shape(equation.outvars[0])) * contracted
    elif name == "conv_general_dilated":
      total += _of_convolution(_shape(equation.invars[1]), _shape(equation.outvars[0]), params)
    elif name == "cond":
      total += max(_of_jaxpr(branch.jaxpr) for branch in params["branches"])
    else:
      times = params["length"] if name == "scan" else 1
      total += times * sum(map(_of_jaxpr, _inner(params)))
  return total


def _of_convolution(
  kernel: tuple[int, ...], out: tuple[int, ...], params: Mapping[str, Any]
) -> int:
  """Operations of a convolution of a picture [B, H, W, C]; zeros put between cells are free."""
  spec = params["dimension_numbers"].rhs_spec
  products = math.prod(kernel[axis] for axis in spec[1:])
  return 2 * math.prod(out) * products // math.prod(params["lhs_dilation"])


def _shape(variable: Any) -> tuple[int, ...]:
  """Sides of an array [...] that an equation takes or gives."""
  shape: tuple[int, ...] = variable.aval.shape
  return shape


def _inner(params: Mapping[str, Any]) -> Iterator[Jaxpr]:
  """Yields the traces that an equation holds: of a loop's body, of a function it calls."""
  for value in params.values():
    for one in value if isinstance(value, (tuple, list)) else (value,):
      if hasattr(one, "eqns"):
        yield one
      elif hasattr(one, "jaxpr"):
        yield one.jaxpr


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
