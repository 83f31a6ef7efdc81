"""SigLIP's image encoder, big_vision's plain ViT: patch tokens behind the norm at the end.

The head that pools them into one vector is left out. Older ViTs of the same code also have
a class token; it takes part in attention and is left out of the grid.

Source: SigLIP, https://arxiv.org/abs/2303.15343; So400m, https://arxiv.org/abs/2305.13035;
older ViTs, https://arxiv.org/abs/2106.10270; the code, big_vision, models/vit.py. EAGLE's
first models do not use the expert; Eagle 2, https://arxiv.org/abs/2501.14818, does, at 448 px.
Differs: pixels come with CLIP's mean and deviation, as for every expert, where the original
was trained with values from -1 to 1. A position table meets another grid as in transformers,
by cubic interpolation; big_vision resizes tables when it loads them, bilinearly.
"""

from __future__ import annotations

import dataclasses
import typing

import flax.linen as nn
import jax.numpy as jnp

from eagle_jax.nn.attention import SelfAttention
from eagle_jax.nn.layers import LayerNorm, Mlp, PatchEmbed, gelu_tanh, stack
from eagle_jax.nn.resize import resize_cubic

if typing.TYPE_CHECKING:
  from jax.typing import DTypeLike
  from jaxtyping import Array, Float, Float32

EPS = 1e-6  # of every norm


@dataclasses.dataclass(frozen=True, kw_only=True)
class SigLipSize:
  """Widths and lengths of one SigLIP."""

  image_size: int  # pixels per side; those that fill no whole patch are left out
  patch: int  # pixels per side of a patch
  table_side: int  # cells per side of the position table, resized where the picture has others
  width: int
  depth: int
  num_heads: int
  mlp_width: int
  class_token: typing.Literal["none", "plain", "placed"] = "none"
  """"plain" has no position, "placed" has row 0 of the position table."""

  @property
  def channels(self) -> int:
    """Channels C of the grid [B, h, w, C] it gives."""
    return self.width

  @property
  def table_rows(self) -> int:
    """Rows N of the position table [N, C]."""
    return self.table_side**2 + (self.class_token == "placed")


_SO400M = SigLipSize(
  image_size=384, patch=14, table_side=27, width=1152, depth=27, num_heads=16, mlp_width=4304
)
_LARGE = SigLipSize(
  image_size=384, patch=16, table_side=24, width=1024, depth=24, num_heads=16, mlp_width=4096
)
_BASE = SigLipSize(
  image_size=224, patch=16, table_side=14, width=768, depth=12, num_heads=12, mlp_width=3072
)

SIZES = {
  "released": _SO400M,
  "448": dataclasses.replace(_SO400M, image_size=448),  # Eagle 2's pictures
  "so14": dataclasses.replace(_SO400M, image_size=224, table_side=16),
  "so16": dataclasses.replace(_SO400M, image_size=512, patch=16, table_side=32),  # SigLIP 2
  "l16": _LARGE,
  "b16": _BASE,
  "s16": dataclasses.replace(_BASE, width=384, num_heads=6, mlp_width=1536),
  "vit_l16": dataclasses.replace(_LARGE, image_size=224, table_side=14, class_token="placed"),
  "vit_b16": dataclasses.replace(_BASE, class_token="placed"),
  "demo": SigLipSize(
    image_size=64, patch=8, table_side=8, width=64, depth=2, num_heads=2, mlp_width=128
  ),
  "tiny": SigLipSize(
    image_size=44, patch=14, table_side=3, width=32, depth=2, num_heads=4, mlp_width=48
  ),
}


class Block(nn.Module):
  """A pre-norm transformer block, called by a scan.

  Attributes:
    size: widths.
    dtype: of computation.
  """

  size: SigLipSize
  dtype: DTypeLike = jnp.float32

  @nn.compact
  def __call__(self, x: Float[Array, "B N C"]) -> tuple[Float[Array, "B N C"], None]:
    """Adds attention, then the MLP."""
    size, dtype = self.size, self.dtype
    head_dim = size.width // size.num_heads
    attention = SelfAttention(
      size.num_heads, head_dim, scale=head_dim**-0.5, dtype=dtype, name="attention"
    )
    x = x + attention(LayerNorm(EPS, dtype, name="attention_norm")(x))
    normed = LayerNorm(EPS, dtype, name="mlp_norm")(x)
    x = x + Mlp(size.mlp_width, gelu_tanh, dtype, name="mlp")(normed)
    self.sow("probes", "block", x)
    return x, None


class SigLip(nn.Module):
  """SigLIP's vision transformer.

  Attributes:
    size: widths and lengths.
    dtype: of computation; norms, softmax and position table are float32.
    remat: of the blocks, one of `nn.remat.POLICIES`.
  """

  size: SigLipSize
  dtype: DTypeLike = jnp.float32
  remat: str = "none"

  @nn.compact
  def __call__(self, pixels: Float[Array, "B H W 3"]) -> Float[Array, "B h w C"]:
    """Encodes pixels normalised with CLIP's mean and deviation, h = H / patch rounded down."""
    size = self.size
    height, width = (side // size.patch * size.patch for side in pixels.shape[1:3])
    patches = PatchEmbed(size.width, size.patch, dtype=self.dtype, name="patches")
    grid = patches(pixels[:, :height, :width])
    shape = grid.shape  # [B, h, w, C]
    table = self.param("positions", nn.initializers.normal(0.02), (size.table_rows, size.width))
    table = table.astype(jnp.float32)
    grid = grid + self._positions(table, shape[1]).astype(self.dtype)
    x = grid.reshape(shape[0], -1, size.width)  # [B, N, C]
    if size.class_token != "none":
      x = jnp.concatenate([self._class_token(table, shape[0]).astype(self.dtype), x], axis=1)
    self.sow("probes", "embeddings", x)
    x, _ = stack(Block, size.depth, remat=self.remat)(size, self.dtype, name="blocks")(x)
    x = LayerNorm(EPS, self.dtype, name="final_norm")(x[:, -shape[1] * shape[2] :])
    return x.reshape(shape)

  def _positions(self, table: Float32[Array, "N C"], side: int) -> Float32[Array, "1 h h C"]:
    """Returns the positions of a grid [1, h, h, C], h = `side`."""
    length, width = self.size.table_side, self.size.width
    grid = table[-(length**2) :].reshape(1, length, length, width)
    return grid if side == length else resize_cubic(grid, side)

  def _class_token(self, table: Float32[Array, "N C"], batch: int) -> Float32[Array, "B 1 C"]:
    """Returns the class token [B, 1, C], with its position if it has one."""
    width = self.size.width
    token = self.param("class_embedding", nn.initializers.normal(0.02), (width,))
    token = token.astype(jnp.float32)
    if self.size.class_token == "placed":
      token = token + table[0]
    return jnp.broadcast_to(token.reshape(1, 1, width), (batch, 1, width))
