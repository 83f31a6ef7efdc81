"""DINOv2's ViT, with or without registers: patch tokens behind the norm at the end.

The class token and the registers take part in attention and are left out of the grid.
Registers are tokens of their own that belong to no patch and have no position.

Source: DINOv2, https://arxiv.org/abs/2304.07193; registers,
https://arxiv.org/abs/2309.16588. EAGLE tried the expert and released no code for it.
Differs: the giant size, whose MLP is gated, is not here; pixels come with CLIP's mean
and deviation, as for every expert, where the original was trained with ImageNet's.
"""

from __future__ import annotations

import dataclasses
import typing

import flax.linen as nn
import jax.numpy as jnp

from eagle_jax.nn.attention import attend
from eagle_jax.nn.layers import LayerNorm, Mlp, PatchEmbed, gelu, stack
from eagle_jax.nn.resize import resize_cubic, resize_cubic_antialias

if typing.TYPE_CHECKING:
  from jax.typing import DTypeLike
  from jaxtyping import Array, Float, Float32

EPS = 1e-6  # of every norm


@dataclasses.dataclass(frozen=True, kw_only=True)
class Dinov2Size:
  """Widths and lengths of one DINOv2."""

  image_size: int  # pixels per side
  patch: int  # pixels per side of a patch; divides image_size
  table_side: int  # cells per side of the position table, resized where the picture has others
  antialias: bool  # whether resizing the table blurs it as it shrinks
  registers: int  # tokens beside those of class and patches
  width: int
  depth: int
  num_heads: int
  mlp_width: int
  layer_scale: float = 1e-5  # what a fresh block's branches are multiplied by

  @property
  def channels(self) -> int:
    """Channels C of the grid [B, h, w, C] it gives."""
    return self.width


_LARGE_WITH_REGISTERS = Dinov2Size(
  image_size=448,
  patch=14,
  table_side=37,
  antialias=True,
  registers=4,
  width=1024,
  depth=24,
  num_heads=16,
  mlp_width=4096,
)
_LARGE = dataclasses.replace(_LARGE_WITH_REGISTERS, registers=0, antialias=False)
_SMALL = dataclasses.replace(
  _LARGE, image_size=224, width=384, depth=12, num_heads=6, mlp_width=1536
)

SIZES = {
  "released": _LARGE_WITH_REGISTERS,  # the one of EAGLE's table 3
  "518": dataclasses.replace(_LARGE_WITH_REGISTERS, image_size=518),
  "l14": _LARGE,
  "b14": dataclasses.replace(
    _LARGE, image_size=224, width=768, depth=12, num_heads=12, mlp_width=3072
  ),
  "s14": _SMALL,
  # The same weights on smaller pictures: 64 patches instead of 256.
  "s14_112": dataclasses.replace(_SMALL, image_size=112),
  "demo": Dinov2Size(
    image_size=64,
    patch=8,
    table_side=8,
    antialias=True,
    registers=4,
    width=64,
    depth=2,
    num_heads=2,
    mlp_width=128,
    layer_scale=0.1,  # a short training from nothing cannot grow blocks that start at 1e-5
  ),
  "tiny": Dinov2Size(
    image_size=56,
    patch=14,
    table_side=3,
    antialias=True,
    registers=2,
    width=32,
    depth=2,
    num_heads=4,
    mlp_width=64,
  ),
}


class Projections(nn.Module):
  """The dense layers that make queries, keys and values, in one parameter [3, C, C].

  Attributes:
    dtype: of computation.
  """

  dtype: DTypeLike

  @nn.compact
  def __call__(self, x: Float[Array, "B N C"]) -> Float[Array, "3 B N C"]:
    """Applies the three layers to every token."""
    width = x.shape[-1]
    init = nn.initializers.lecun_normal(batch_axis=0)
    kernel = self.param("kernel", init, (3, width, width)).astype(self.dtype)
    bias = self.param("bias", nn.initializers.zeros, (3, width)).astype(self.dtype)
    return jnp.einsum("bnc,kcd->kbnd", x, kernel) + bias.reshape(3, 1, 1, width)


class Attention(nn.Module):
  """Self-attention of all tokens.

  Attributes:
    num_heads: heads.
    dtype: of computation; softmax is float32.
  """

  num_heads: int
  dtype: DTypeLike

  @nn.compact
  def __call__(self, x: Float[Array, "B N C"]) -> Float[Array, "B N C"]:
    """Lets every token look at all."""
    batch, length, width = x.shape
    heads = (3, batch, length, self.num_heads, width // self.num_heads)
    query, key, value = Projections(self.dtype, name="qkv")(x).reshape(heads)  # each [B, N, H, d]
    mixed = attend(query, key, value, scale=heads[-1] ** -0.5).reshape(x.shape)
    return nn.Dense(width, dtype=self.dtype, name="out")(mixed)


class LayerScale(nn.Module):
  """A learned factor for each channel.

  Source: CaiT, https://arxiv.org/abs/2103.17239, section 2.

  Attributes:
    initial: value of a fresh factor.
    dtype: of computation.
  """

  initial: float
  dtype: DTypeLike

  @nn.compact
  def __call__(self, x: Float[Array, "B N C"]) -> Float[Array, "B N C"]:
    """Multiplies by the factors [C]."""
    init = nn.initializers.constant(self.initial)
    scale = self.param("layer_scale", init, (x.shape[-1],))
    return x * scale.astype(self.dtype).reshape(1, 1, -1)


class Block(nn.Module):
  """A pre-norm transformer block with scaled branches, called by a scan.

  Attributes:
    size: widths.
    dtype: of computation.
  """

  size: Dinov2Size
  dtype: DTypeLike = jnp.float32

  @nn.compact
  def __call__(self, x: Float[Array, "B N C"]) -> tuple[Float[Array, "B N C"], None]:
    """Adds attention, then the MLP."""
    size, dtype = self.size, self.dtype
    branch = LayerNorm(EPS, dtype, name="attention_norm")(x)
    branch = Attention(size.num_heads, dtype, name="attention")(branch)
    x = x + LayerScale(size.layer_scale, dtype, name="attention_scale")(branch)
    branch = LayerNorm(EPS, dtype, name="mlp_norm")(x)
    branch = Mlp(size.mlp_width, gelu, dtype, name="mlp")(branch)
    x = x + LayerScale(size.layer_scale, dtype, name="mlp_scale")(branch)
    self.sow("probes", "block", x)
    return x, None


class Dinov2(nn.Module):
  """DINOv2's vision transformer.

  Attributes:
    size: widths and lengths.
    dtype: of computation; norms, softmax and position table are float32.
    remat: of the blocks, one of `nn.remat.POLICIES`.
  """

  size: Dinov2Size
  dtype: DTypeLike = jnp.float32
  remat: str = "none"

  @nn.compact
  def __call__(self, pixels: Float[Array, "B H W 3"]) -> Float[Array, "B h w C"]:
    """Encodes pixels normalised with CLIP's mean and deviation, h = H / patch."""
    size = self.size
    grid = PatchEmbed(size.width, size.patch, dtype=self.dtype, name="patches")(pixels)
    shape = grid.shape  # [B, h, w, C]
    class_position, positions = self._positions(shape[1])
    grid = grid + positions.astype(self.dtype)
    before = self._before(class_position).astype(self.dtype)
    before = jnp.broadcast_to(before[None], (shape[0], *before.shape))  # [B, 1+R, C]
    x = jnp.concatenate([before, grid.reshape(shape[0], -1, size.width)], axis=1)
    self.sow("probes", "embeddings", x)
    x, _ = stack(Block, size.depth, remat=self.remat)(size, self.dtype, name="blocks")(x)
    x = LayerNorm(EPS, self.dtype, name="final_norm")(x[:, before.shape[1] :])
    return x.reshape(shape)

  def _before(self, class_position: Float32[Array, " C"]) -> Float32[Array, "1+R C"]:
    """Returns what stands before the patches, [1+R, C]: class with its position, registers."""
    size, init = self.size, nn.initializers.normal(0.02)
    class_token = self.param("class_embedding", init, (size.width,)).astype(jnp.float32)
    tokens = [(class_token + class_position)[None]]
    if size.registers:
      registers = self.param("register_embedding", init, (size.registers, size.width))
      tokens.append(registers.astype(jnp.float32))
    return jnp.concatenate(tokens)

  def _positions(self, side: int) -> tuple[Float32[Array, " C"], Float32[Array, "1 h h C"]]:
    """Returns the class token's position [C] and those of a grid [1, h, h, C], h = `side`."""
    size = self.size
    rows = 1 + size.table_side**2
    table = self.param("positions", nn.initializers.normal(0.02), (rows, size.width))
    table = table.astype(jnp.float32)
    grid = table[1:].reshape(1, size.table_side, size.table_side, size.width)
    if side != size.table_side:
      resize = resize_cubic_antialias if size.antialias else resize_cubic
      grid = resize(grid, side)
    return table[0], grid
