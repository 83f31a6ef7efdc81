"""From the width of the fused visual tokens to the width of the language model.

Source: EAGLE, multimodal_projector/builder.py, build_vision_projector.
"""

from __future__ import annotations

import re
import typing

import flax.linen as nn
import jax.numpy as jnp

from eagle_jax.errors import EagleError
from eagle_jax.nn.layers import gelu
from eagle_jax.registry import nearest

if typing.TYPE_CHECKING:
  from jax.typing import DTypeLike
  from jaxtyping import Array, Float

_FIXED = {"identity": 0, "linear": 1}
_MLP = re.compile(r"mlp([1-9][0-9]*)x_gelu")


def num_layers(kind: str) -> int:
  """Returns how many linear layers a projector has: 0 for 'identity', N for 'mlpNx_gelu'.

  The layers take tokens [B, N, C] to [B, N, D].

  Raises:
    EagleError: if no projector is called `kind`; names the nearest one.
  """
  if kind in _FIXED:
    return _FIXED[kind]
  if match := _MLP.fullmatch(kind):
    return int(match[1])
  known = (*_FIXED, "mlp2x_gelu")
  raise EagleError(
    f"no projector is called {kind!r}{nearest(kind, known) or '.'} "
    "Known: identity, linear, mlpNx_gelu with N from 1."
  )


class Projector(nn.Module):
  """Linear layers with exact GELU between them, as many as the name says.

  Attributes:
    kind: 'linear', 'mlpNx_gelu' or 'identity'.
    width: channels D it gives.
    dtype: of the computation; parameters are created in float32.
  """

  kind: str
  width: int
  dtype: DTypeLike = jnp.float32

  @nn.compact
  def __call__(self, tokens: Float[Array, "B N C"]) -> Float[Array, "B N D"]:
    """Projects every token.

    Raises:
      EagleError: if the projector is 'identity' and C differs from D.
    """
    depth = num_layers(self.kind)
    if depth == 0 and tokens.shape[-1] != self.width:
      raise EagleError(
        "projector 'identity' needs the fused width and the language width to be equal, "
        f"they are {tokens.shape[-1]} and {self.width}"
      )
    x = tokens.astype(self.dtype)
    for layer in range(depth):
      if layer > 0:
        x = gelu(x)
      x = nn.Dense(self.width, dtype=self.dtype, name=f"layer_{layer}")(x)  # [B, N, D]
    return x
