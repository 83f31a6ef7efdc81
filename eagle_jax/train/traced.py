"""Floating-point operations of a traced function, two per multiply and add.

Only products and convolutions count. The compiler's own figure is of no use: it counts a
loop's body once.
"""

from __future__ import annotations

import math
import typing
from collections.abc import Iterator, Mapping
from typing import Any

if typing.TYPE_CHECKING:
  from jax.extend.core import ClosedJaxpr, Jaxpr


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
      total += times * sum(map(_of_jaxpr, inner(params)))
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


def inner(params: Mapping[str, Any]) -> Iterator[Jaxpr]:
  """Yields the traces that an equation holds: of a loop's body, of a function it calls."""
  for value in params.values():
    for one in value if isinstance(value, (tuple, list)) else (value,):
      if hasattr(one, "eqns"):
        yield one
      elif hasattr(one, "jaxpr"):
        yield one.jaxpr
