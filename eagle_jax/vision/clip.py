"""CLIP's ViT as EAGLE runs it: patch tokens only, all blocks, no norm at the end.

The class token takes part in nothing: it is dropped before the first norm. It stays a
parameter, as it is in the original, where the optimizer decays it.

Source: CLIP, https://arxiv.org/abs/2103.00020; EAGLE, clip_encoder.py.
"""

from __future__ import annotations

import dataclasses
import typing

import flax.linen as nn
import jax.numpy as jnp

from eagle_jax.nn.attention import SelfAttention
from eagle_jax.nn.layers import LayerNorm, Mlp, PatchEmbed, quick_gelu, stack
from eagle_jax.nn.resize import resize_cubic_antialias

if typing.TYPE_CHECKING:
  from jax.typing import DTypeLike
  from jaxtyping import Array, Float


@dataclasses.dataclass(frozen=True, kw_only=True)
class ClipSize:
  """Widths and lengths of one CLIP."""

  image_size: int  # pixels per side
  patch: int  # pixels per side of a patch; divides image_size
  table_side: int  # cells per side of the position table, resized where the picture has others
  width: int
  depth: int
  num_heads: int
  mlp_width: int
  norm_eps: float = 1e-5

  @property
  def channels(self) -> int:
    """Channels of the grid."""
    return self.width


_LARGE = ClipSize(
  image_size=336, patch=14, table_side=24, width=1024, depth=24, num_heads=16, mlp_width=4096
)

SIZES = {
  "released": _LARGE,  # upstream's 'clip-448' in fact resizes its pictures to 336
  "448": dataclasses.replace(_LARGE, image_size=448),
  "672": dataclasses.replace(_LARGE, image_size=672),
  "demo": ClipSize(
    image_size=64, patch=8, table_side=8, width=64, depth=2, num_heads=2, mlp_width=128
  ),
  "tiny": ClipSize(
    image_size=42, patch=14, table_side=3, width=32, depth=3, num_heads=4, mlp_width=64
  ),
}


class Block(nn.Module):
  """A pre-norm transformer block, called by a scan.

  Attributes:
    size: widths.
    dtype: of computation.
  """

  size: ClipSize
  dtype: DTypeLike = jnp.float32

  @nn.compact
  def __call__(self, x: Float[Array, "B N C"]) -> tuple[Float[Array, "B N C"], None]:
    """Adds attention, then the MLP."""
    size = self.size
    head_dim = size.width // size.num_heads
    normed = LayerNorm(size.norm_eps, self.dtype, name="attention_norm")(x)
    x = x + SelfAttention(
      size.num_heads, head_dim, scale=head_dim**-0.5, dtype=self.dtype, name="attention"
    )(normed)
    normed = LayerNorm(size.norm_eps, self.dtype, name="mlp_norm")(x)
    x = x + Mlp(size.mlp_width, quick_gelu, self.dtype, name="mlp")(normed)
    self.sow("probes", "block", x)
    return x, None


class Clip(nn.Module):
  """CLIP's vision transformer.

  Attributes:
    size: widths and lengths.
    dtype: of computation; norms and softmax are float32.
    remat: of the blocks, one of `nn.remat.POLICIES`.
  """

  size: ClipSize
  dtype: DTypeLike = jnp.float32
  remat: str = "none"

  @nn.compact
  def __call__(self, pixels: Float[Array, "B H W 3"]) -> Float[Array, "B h w C"]:
    """Encodes pixels normalised with CLIP's mean and deviation, h = H / patch."""
    size = self.size
    grid = PatchEmbed(size.width, size.patch, use_bias=False, dtype=self.dtype, name="patches")(
      pixels
    )  # [B, h, w, C]
    shape = grid.shape
    class_position, positions = self._positions(shape[1])
    x = (grid + positions.astype(self.dtype)).reshape(shape[0], -1, size.width)  # [B, N, C]
    self._sow_embeddings(x, class_position)
    x = LayerNorm(size.norm_eps, self.dtype, name="pre_norm")(x)
    self.sow("probes", "pre_layernorm", x)
    x, _ = stack(Block, size.depth, remat=self.remat)(size, self.dtype, name="blocks")(x)
    return x.reshape(shape)

  def _positions(self, side: int) -> tuple[Float[Array, " C"], Float[Array, "1 h h C"]]:
    """Returns the class token's position and those of a square grid, resized if need be."""
    size = self.size
    rows = 1 + size.table_side**2
    table = self.param("positions", nn.initializers.normal(0.02), (rows, size.width))
    grid = table[1:].reshape(1, size.table_side, size.table_side, size.width)
    if side != size.table_side:
      grid = resize_cubic_antialias(grid, side)
    return table[0], grid

  def _sow_embeddings(self, x: Float[Array, "B N C"], class_position: Float[Array, " C"]) -> None:
    """Sows what upstream embeds, class token first: [B, 1+N, C]; the output needs none of it."""
    token = self.param("class_embedding", nn.initializers.normal(0.02), (self.size.width,))
    first = (token + class_position).astype(x.dtype).reshape(1, 1, -1)
    first = jnp.broadcast_to(first, (x.shape[0], 1, x.shape[2]))
    self.sow("probes", "embeddings_with_cls", jnp.concatenate([first, x], axis=1))
