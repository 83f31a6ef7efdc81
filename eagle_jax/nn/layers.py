"""Norms, MLPs, activations, patch embedding and the scanned stack of blocks."""

from __future__ import annotations

import typing
from collections.abc import Callable

import flax.linen as nn
import jax
import jax.numpy as jnp

from eagle_jax.errors import EagleError
from eagle_jax.nn import remat as remat_lib
from eagle_jax.sharding.activations import hold

if typing.TYPE_CHECKING:
  from jax.typing import DTypeLike
  from jaxtyping import Array, Float

Activation = Callable[["Float[Array, '*any']"], "Float[Array, '*any']"]


def quick_gelu(x: Float[Array, "*any"]) -> Float[Array, "*any"]:
  """Multiplies by a sigmoid of 1.702 x. Source: CLIP, model.py, QuickGELU."""
  return x * jax.nn.sigmoid(1.702 * x)


def gelu(x: Float[Array, "*any"]) -> Float[Array, "*any"]:
  """Multiplies by the exact normal distribution function, not its tanh approximation."""
  return jax.nn.gelu(x, approximate=False)


def gelu_tanh(x: Float[Array, "*any"]) -> Float[Array, "*any"]:
  """Approximates `gelu` with a tanh. Source: GPT-2 and T5 v1.1, where it is 'gelu_new'."""
  return jax.nn.gelu(x, approximate=True)


class LayerNorm(nn.Module):
  """Centres and scales the last axis; statistics in float32 whatever the dtype.

  Attributes:
    eps: added to the variance before the root.
    dtype: of the result.
  """

  eps: float
  dtype: DTypeLike = jnp.float32

  @nn.compact
  def __call__(self, x: Float[Array, "*any C"]) -> Float[Array, "*any C"]:
    """Normalises each vector [C], then applies scale and bias."""
    channels = x.shape[-1]
    scale = self.param("scale", nn.initializers.ones, (channels,))
    bias = self.param("bias", nn.initializers.zeros, (channels,))
    x = x.astype(jnp.float32)
    x = x - x.mean(-1, keepdims=True)
    x = x * jax.lax.rsqrt(jnp.square(x).mean(-1, keepdims=True) + self.eps)
    return (x * _over_last(scale, x.ndim) + _over_last(bias, x.ndim)).astype(self.dtype)


class RmsNorm(nn.Module):
  """Scales the last axis to unit root mean square, without centring; computed in float32.

  Source: T5 and Llama.

  Attributes:
    eps: added to the mean square before the root.
    dtype: of the result.
  """

  eps: float
  dtype: DTypeLike = jnp.float32

  @nn.compact
  def __call__(self, x: Float[Array, "*any C"]) -> Float[Array, "*any C"]:
    """Normalises each vector [C], then applies the scale."""
    scale = self.param("scale", nn.initializers.ones, (x.shape[-1],))
    x = x.astype(jnp.float32)
    x = x * jax.lax.rsqrt(jnp.square(x).mean(-1, keepdims=True) + self.eps)
    return (x * _over_last(scale, x.ndim)).astype(self.dtype)


def _over_last(vector: Float[Array, " C"], rank: int) -> Float[Array, "... C"]:
  """Returns a [C] parameter in float32, ready to meet an array of that rank."""
  return vector.astype(jnp.float32).reshape((1,) * (rank - 1) + (-1,))


class Mlp(nn.Module):
  """Two dense layers, `fc1` and `fc2`, around an activation; gives back the input width.

  Attributes:
    width: channels between the two.
    activation: applied to them.
    dtype: of computation.
  """

  width: int
  activation: Activation
  dtype: DTypeLike = jnp.float32

  @nn.compact
  def __call__(self, x: Float[Array, "*any C"]) -> Float[Array, "*any C"]:
    """Applies the two layers to each vector [C]."""
    hidden = nn.Dense(self.width, dtype=self.dtype, name="fc1")(x)  # [..., width]
    hidden = self.activation(remat_lib.name(hidden, "hidden"))
    return nn.Dense(x.shape[-1], dtype=self.dtype, name="fc2")(hidden)


class GatedMlp(nn.Module):
  """Dense layers without bias: `down(activation(gate(x)) * up(x))`.

  Attributes:
    width: channels between them.
    activation: applied to the gate.
    dtype: of computation.
  """

  width: int
  activation: Activation
  dtype: DTypeLike = jnp.float32

  @nn.compact
  def __call__(self, x: Float[Array, "*any C"]) -> Float[Array, "*any C"]:
    """Applies the three layers to each vector [C]."""
    gate = nn.Dense(self.width, use_bias=False, dtype=self.dtype, name="gate")(x)  # [..., width]
    up = nn.Dense(self.width, use_bias=False, dtype=self.dtype, name="up")(x)  # [..., width]
    gate, up = remat_lib.name(gate, "hidden"), remat_lib.name(up, "hidden")
    down = nn.Dense(x.shape[-1], use_bias=False, dtype=self.dtype, name="down")
    return down(self.activation(gate) * up)


class PatchEmbed(nn.Module):
  """A convolution whose stride is its kernel: cuts into patches, maps each to a vector.

  Done as one matrix product. The parameters are a convolution's: `kernel`
  [patch, patch, C, width] and, if asked for, `bias` [width].

  Attributes:
    width: channels of the result.
    patch: cells per side of a patch.
    use_bias: whether a bias is added.
    dtype: of computation.
  """

  width: int
  patch: int
  use_bias: bool = True
  dtype: DTypeLike = jnp.float32

  @nn.compact
  def __call__(self, x: Float[Array, "B H W C"]) -> Float[Array, "B h w D"]:
    """Embeds every patch of a picture or grid.

    Raises:
      EagleError: if the patch does not divide both sides.
    """
    batch, height, width, channels = x.shape
    p = self.patch
    if height % p or width % p:
      raise EagleError(
        f"{self.name}: the patch must divide both sides, patch {p} and picture {height}x{width}"
      )
    kernel = self.param("kernel", nn.initializers.lecun_normal(), (p, p, channels, self.width))
    x = x.astype(self.dtype).reshape(batch, height // p, p, width // p, p, channels)
    x = jnp.einsum("bhpwqc,pqcd->bhwd", x, kernel.astype(self.dtype))  # [B, h, w, D]
    if self.use_bias:
      bias = self.param("bias", nn.initializers.zeros, (self.width,))
      x = x + bias.astype(self.dtype).reshape(1, 1, 1, -1)
    return x


def stack(
  block: type[nn.Module], length: int, *, remat: str, axes: tuple[str, ...] = ("pictures",)
) -> Callable[..., nn.Module]:
  """Returns a module class that runs `length` blocks of one kind in a row.

  Every parameter gets a leading axis of that length and the stack compiles as one
  loop, so compile time does not depend on depth. What a block sows as a probe is
  stacked in the same way.

  Args:
    block: called as `block(...)(x, *constants)`, gives `(x, None)`: [B, N, C] in and out.
    length: number of blocks.
    remat: one of `remat.POLICIES`: what is kept of each block for the backward pass.
    axes: what the first dimensions of x are, for `sharding.activations.hold`.

  Raises:
    EagleError: if `remat` is no known policy.
  """
  return nn.scan(
    remat_lib.wrap(_held(block, axes), remat),
    variable_axes={"params": 0, "probes": 0},
    split_rngs={"params": True},
    in_axes=nn.broadcast,
    length=length,
  )


def _held(block: type[nn.Module], axes: tuple[str, ...]) -> type[nn.Module]:
  """Returns a block's class whose input and output, [B, N, C] or a grid, are held in place."""
  plain = typing.cast("Callable[..., tuple[Array, None]]", block.__call__)

  def call(
    self: nn.Module, x: Float[Array, "B *any C"], *constants: typing.Any
  ) -> tuple[Float[Array, "B *any C"], None]:
    """Calls the block."""
    y, _ = plain(self, hold(x, *axes), *constants)
    return hold(y, *axes), None

  call.__name__ = "__call__"  # Flax names scopes after methods, but not after this one
  body = {"__call__": call, "__module__": block.__module__}
  held: type[nn.Module] = type(block.__name__, (block,), body)
  return held
