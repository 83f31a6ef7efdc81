"""From the stacked layers of training to layers one by one, once, at load."""

from __future__ import annotations

import typing

import jax

if typing.TYPE_CHECKING:
  from collections.abc import Mapping
  from typing import Any

STACK = "layers"
"""Where the language model keeps its stacked layers."""


def unstack(params: Mapping[str, Any]) -> dict[str, Any]:
  """Returns language parameters with 'layers/…' [L, …] split into 'layers_0/…' ….

  What `Llama(size, stacked=True)` owns becomes what `Llama(size, stacked=False)`
  reads. NumPy leaves become views; device arrays are copied layer by layer and keep
  the sharding of their other axes, so drop the stacked tree afterwards.

  Args:
    params: the tree under language/; everything but the layers is passed on as it is.
  """
  depth = jax.tree.leaves(params[STACK])[0].shape[0]
  out = {name: value for name, value in params.items() if name != STACK}
  for layer in range(depth):
    # `layer` is bound now: the lambda must not see the next one.
    out[f"{STACK}_{layer}"] = jax.tree.map(lambda leaf, n=layer: leaf[n], params[STACK])
  return out
