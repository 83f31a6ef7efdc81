"""SAM's image encoder with EAGLE's short neck.

Blocks attend within windows or globally and add relative positions to their scores.
Of the original neck one 1x1 convolution and its norm remain, freshly trained, and the
grid is folded two by two into channels.

Source: Segment Anything (arXiv 2304.02643), appendix A; EAGLE,
multimodal_encoder/sam_encoder.py, ShortSamVisionNeck.
"""

from __future__ import annotations

import dataclasses
import typing

import flax.linen as nn
import jax.numpy as jnp

from eagle_jax.nn.attention import attend, attend_in_parts
from eagle_jax.nn.layers import LayerNorm, Mlp, PatchEmbed, gelu
from eagle_jax.nn.layout import Layout
from eagle_jax.nn.resize import pixel_unshuffle
from eagle_jax.nn.stack import Blocks, apply_blocks
from eagle_jax.nn.windows import partition, unpartition

if typing.TYPE_CHECKING:
  from jax.typing import DTypeLike
  from jaxtyping import Array, Float, Float32

EPS = 1e-6  # of every norm
FOLD = 2  # cells per side of what becomes one cell of the output
WINDOW, GLOBAL = "window", "global"


@dataclasses.dataclass(frozen=True, kw_only=True)
class SamSize:
  """Numbers that make one SAM encoder."""

  image_size: int  # pixels per side; the table of absolute positions allows no other
  patch: int  # pixels per side; divides image_size
  width: int
  num_heads: int
  kinds: tuple[str, ...]  # of every block: "window" or "global"
  window: int  # cells per side
  rows_at_once: int  # of the grid, whose queries attend at a time; divides `cells`
  neck_width: int  # channels after the neck, before folding

  @property
  def channels(self) -> int:
    """Channels C of the grid [B, h, w, C] it gives."""
    return self.neck_width * FOLD**2

  @property
  def cells(self) -> int:
    """Cells per side inside the encoder, [B, cells, cells, width] before the neck."""
    return self.image_size // self.patch

  @property
  def head_dim(self) -> int:
    """Channels d of a head; queries are [M, T, H, d]."""
    return self.width // self.num_heads

  @property
  def mlp_width(self) -> int:
    """Hidden channels of the MLP, [B, H, W, mlp_width]."""
    return 4 * self.width

  @property
  def layout(self) -> Layout:
    """How the blocks are stacked."""
    return Layout(self.kinds)


SIZES: dict[str, SamSize] = {
  "released": SamSize(
    image_size=1024,
    patch=16,
    width=1024,
    num_heads=16,
    kinds=((WINDOW,) * 5 + (GLOBAL,)) * 4,
    window=14,
    rows_at_once=8,  # of 64: 1/8 of the scores, which are 1 GiB a picture in float32
    neck_width=256,
  ),
  # The small golden files; the window of 3 does not divide the grid of 8.
  "tiny": SamSize(
    image_size=128,
    patch=16,
    width=32,
    num_heads=4,
    kinds=(WINDOW, GLOBAL) * 2,
    window=3,
    rows_at_once=4,
    neck_width=8,
  ),
  "demo": SamSize(
    image_size=64,
    patch=8,
    width=64,
    num_heads=2,
    kinds=(WINDOW, GLOBAL),
    window=3,
    rows_at_once=8,
    neck_width=16,
  ),
}


def by_distance(vectors: Float[Array, "R d"]) -> Float[Array, "side side d"]:
  """Looks up the vector of the distance of every query from every key.

  Args:
    vectors: of the distances 1 - side … side - 1, R = 2·side - 1.
  """
  side = (vectors.shape[0] + 1) // 2
  cells = jnp.arange(side)
  return vectors[cells[:, None] - cells[None] + side - 1]


def relative_bias(
  query: Float[Array, "M T H d"],
  rows: Float[Array, "r side d"],
  columns: Float[Array, "side side d"],
) -> Float32[Array, "M H T S"]:
  """Scores pairs of cells by the distance of their rows plus that of their columns.

  Each query, not scaled by 1/√d, is multiplied with one vector per distance.

  Source: SAM, image_encoder.py, add_decomposed_rel_pos; first in MViTv2.

  Args:
    query: the queries of r rows of square windows of S = side² cells, row-major, T = r·side.
    rows: the vectors of these rows' distances from all rows.
    columns: those of all columns from each other.
  """
  count, _, heads, head_dim = query.shape
  some, side = rows.shape[:2]
  grid = query.reshape(count, some, side, heads, head_dim)
  # y and x are the query's row and column, v and u the key's.
  by_row = jnp.einsum("myxhd,yvd->mhyxv", grid, rows, preferred_element_type=jnp.float32)
  by_column = jnp.einsum("myxhd,xud->mhyxu", grid, columns, preferred_element_type=jnp.float32)
  bias = by_row[..., :, None] + by_column[..., None, :]  # [M, H, r, side, side, side]
  return bias.reshape(count, heads, some * side, side**2)


class Qkv(nn.Module):
  """One product for queries, keys and values, whose columns lie one after another in its kernel.

  The kernel is cut in three, not what comes out: where heads are divided over devices, a
  device then keeps the heads it computes. Cutting the result would first gather it, since
  a third of the columns is no device's share.

  Attributes:
    dtype: of computation.
  """

  dtype: DTypeLike

  @nn.compact
  def __call__(self, x: Float[Array, "M side side C"]) -> Float[Array, "M side side 3 C"]:
    """Applies a kernel [C, 3·C] and a bias [3·C]."""
    width = x.shape[-1]
    kernel = self.param("kernel", nn.initializers.lecun_normal(), (width, 3 * width))
    bias = self.param("bias", nn.initializers.zeros, (3 * width,))
    kernel, bias = (leaf.astype(self.dtype) for leaf in (kernel, bias))
    out = jnp.einsum("myxc,cko->myxko", x.astype(self.dtype), kernel.reshape(width, 3, width))
    return out + bias.reshape(1, 1, 1, 3, width)


class Attention(nn.Module):
  """Self-attention over square windows with relative positions and one fused qkv layer.

  Attributes:
    size: of the expert.
    dtype: of computation; scores and softmax are float32.
  """

  size: SamSize
  dtype: DTypeLike

  @nn.compact
  def __call__(self, x: Float[Array, "M side side C"]) -> Float[Array, "M side side C"]:
    """Mixes the cells of each of M windows or grids."""
    size, side = self.size, x.shape[1]
    qkv = Qkv(self.dtype, name="qkv")(x)  # [M, side, side, 3, C]
    qkv = qkv.reshape(x.shape[0], side**2, 3, size.num_heads, size.head_dim)
    query, key, value = qkv[:, :, 0], qkv[:, :, 1], qkv[:, :, 2]  # each [M, T, H, d]
    rows, columns = (
      by_distance(
        self.param(name, nn.initializers.zeros, (2 * side - 1, size.head_dim)).astype(self.dtype)
      )
      for name in ("relative_row_positions", "relative_column_positions")
    )
    scale = size.head_dim**-0.5
    if side == size.cells:
      mixed = attend_in_parts(
        *(query, key, value),
        scale=scale,
        bias=lambda part, at: relative_bias(part, at, columns),  # [M, H, t, T]
        operands=rows.reshape(-1, size.rows_at_once, side, size.head_dim),
      )
    else:
      bias = relative_bias(query, rows, columns)  # [M, H, T, T]
      mixed = attend(query, key, value, scale=scale, bias=bias)
    return nn.Dense(size.width, dtype=self.dtype, name="out")(mixed.reshape(x.shape))


class Block(nn.Module):
  """A residual block over windows or over the whole grid.

  Windows that do not divide the grid are filled up with zeros after the norm. Nothing
  masks them: they take part with the biases of key and value and with their places.

  Attributes:
    kind: "window" or "global".
    size: of the expert.
    dtype: of computation.
  """

  kind: str
  size: SamSize
  dtype: DTypeLike

  @nn.compact
  def __call__(
    self, x: Float[Array, "B H W C"], operand: None
  ) -> tuple[Float[Array, "B H W C"], None]:
    """Applies attention, then the MLP; the None makes a step of a scan of it."""
    side = self.size.window if self.kind == WINDOW else x.shape[1]
    cells = partition(LayerNorm(EPS, self.dtype, name="attention_norm")(x), side)
    cells = Attention(self.size, self.dtype, name="attention")(cells)  # [M, side, side, C]
    x = x + unpartition(cells, x.shape[1], x.shape[2])  # [B, H, W, C]
    mlp = Mlp(self.size.mlp_width, gelu, self.dtype, name="mlp")
    x = x + mlp(LayerNorm(EPS, self.dtype, name="mlp_norm")(x))
    self.sow("probes", "block", x)
    return x, None


class Sam(nn.Module):
  """The whole expert.

  Attributes:
    size: one of SIZES, or another.
    dtype: of computation; norms and softmax are float32.
    remat: of the blocks, one of `nn.remat.POLICIES`.
  """

  size: SamSize
  dtype: DTypeLike = jnp.float32
  remat: str = "none"

  @nn.compact
  def __call__(self, pixels: Float[Array, "B P P 3"]) -> Float[Array, "B h w C"]:
    """Encodes pictures normalised with CLIP's mean and deviation, h = w = P / patch / 2."""
    size = self.size
    x = PatchEmbed(size.width, size.patch, dtype=self.dtype, name="patches")(pixels)
    self.sow("probes", "patch_embed", x)
    shape = (1, size.cells, size.cells, size.width)
    positions = self.param("positions", nn.initializers.normal(0.02), shape)
    x = x + positions.astype(self.dtype)
    self.sow("probes", "patch_embed_plus_pos", x)
    x = apply_blocks(size.layout, Blocks(Block, size, self.dtype, self.remat), x)
    x = PatchEmbed(size.neck_width, 1, use_bias=False, dtype=self.dtype, name="neck_conv")(x)
    x = LayerNorm(EPS, self.dtype, name="neck_norm")(x)
    self.sow("probes", "neck", x)  # [B, FOLD·h, FOLD·w, neck_width]
    return pixel_unshuffle(x, FOLD)
