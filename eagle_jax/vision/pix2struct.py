"""Pix2Struct's encoder, with the picture processing that EAGLE runs inside of it.

Of all experts this one alone undoes CLIP's normalisation: it standardises each picture
by its own mean and deviation, resizes it so that as many whole patches as allowed fit,
and tells each patch its row and column.

Source: Pix2Struct, https://arxiv.org/abs/2210.03347; transformers,
Pix2StructImageProcessor; EAGLE, pix2struct_encoder.py.
"""

from __future__ import annotations

import dataclasses
import math
import typing

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from eagle_jax.nn.attention import SelfAttention
from eagle_jax.nn.layers import GatedMlp, RmsNorm, gelu_tanh, stack
from eagle_jax.nn.pixels import denormalise
from eagle_jax.nn.resize import resize_align_corners, resize_antialias

if typing.TYPE_CHECKING:
  from jax.typing import DTypeLike
  from jaxtyping import Array, Bool, Float


@dataclasses.dataclass(frozen=True, kw_only=True)
class Pix2StructSize:
  """Widths and lengths of one Pix2Struct encoder."""

  image_size: int  # pixels per side
  max_patches: int  # length of the sequence, of which whole rows of patches fill most
  out_side: int  # cells per side of the grid it gives, after its own resize
  table_length: int  # rows of the row and of the column embedding
  width: int
  depth: int
  num_heads: int
  head_dim: int
  mlp_width: int
  patch: int = 16  # pixels per side of a patch, after resizing
  norm_eps: float = 1e-6

  @property
  def channels(self) -> int:
    """Channels of the grid."""
    return self.width


SIZES = {
  "released": Pix2StructSize(
    image_size=1024,
    max_patches=2048,
    out_side=32,
    table_length=4096,
    width=1536,
    depth=18,
    num_heads=24,
    head_dim=64,
    mlp_width=3968,
  ),
  "demo": Pix2StructSize(
    image_size=64,
    max_patches=16,
    out_side=4,
    table_length=16,
    width=64,
    depth=2,
    num_heads=2,
    head_dim=32,
    mlp_width=128,
  ),
  "tiny": Pix2StructSize(
    image_size=1024,
    max_patches=2048,
    out_side=32,
    table_length=64,
    width=32,
    depth=3,
    num_heads=4,
    head_dim=8,
    mlp_width=48,
  ),
}


def patch_counts(height: int, width: int, size: Pix2StructSize) -> tuple[int, int]:
  """Returns the rows and columns of patches [h, w] that fit and keep the aspect of a picture.

  Args:
    height: pixels.
    width: pixels.
    size: patch side and the most patches.
  """
  patch = size.patch
  scale = math.sqrt(size.max_patches * (patch / height) * (patch / width))
  rows, columns = (
    max(min(math.floor(scale * side / patch), size.max_patches), 1) for side in (height, width)
  )
  return rows, columns


def cut_patches(
  levels: Float[Array, "B H W 3"], size: Pix2StructSize
) -> Float[Array, "B M 2+patch*patch*3"]:
  """Standardises, resizes and cuts pictures into M = max_patches rows, in float32.

  A row is the patch's 1-based row, its 1-based column, then its values by row, column
  and colour. Rows beyond the patches are zeros.

  Args:
    levels: grey levels in [0, 255].
    size: patch side and the most patches.
  """
  batch, height, width, _ = levels.shape
  levels = levels.astype(jnp.float32)
  mean = levels.mean((1, 2, 3), keepdims=True)
  deviation = levels.std((1, 2, 3), keepdims=True)
  # A picture of one colour would divide by zero.
  deviation = jnp.maximum(deviation, 1 / math.sqrt(height * width * 3))
  rows, columns = patch_counts(height, width, size)
  p = size.patch
  x = resize_antialias((levels - mean) / deviation, rows * p, columns * p)
  x = x.reshape(batch, rows, p, columns, p, 3).transpose(0, 1, 3, 2, 4, 5)
  x = x.reshape(batch, rows * columns, p * p * 3)  # [B, h·w, patch·patch·3]
  ids = np.indices((rows, columns), np.float32).reshape(2, -1).T + np.float32(1)  # [h·w, 2]
  x = jnp.concatenate([jnp.broadcast_to(ids[None], (batch, *ids.shape)), x], axis=-1)
  return jnp.pad(x, ((0, 0), (0, size.max_patches - rows * columns), (0, 0)))


class Block(nn.Module):
  """A pre-norm block in the manner of T5: unscaled attention, no biases; called by a scan.

  Attributes:
    size: widths.
    dtype: of computation.
  """

  size: Pix2StructSize
  dtype: DTypeLike = jnp.float32

  @nn.compact
  def __call__(
    self, x: Float[Array, "B M C"], visible: Bool[Array, "1 1 1 M"]
  ) -> tuple[Float[Array, "B M C"], None]:
    """Adds attention, then the gated MLP."""
    size = self.size
    normed = RmsNorm(size.norm_eps, self.dtype, name="attention_norm")(x)
    x = x + SelfAttention(
      size.num_heads, size.head_dim, scale=1.0, use_bias=False, dtype=self.dtype, name="attention"
    )(normed, visible)
    normed = RmsNorm(size.norm_eps, self.dtype, name="mlp_norm")(x)
    x = x + GatedMlp(size.mlp_width, gelu_tanh, self.dtype, name="mlp")(normed)
    self.sow("probes", "block", x)
    return x, None


class Pix2Struct(nn.Module):
  """Pix2Struct's encoder on one grid of patches, resized to `size.out_side`.

  Attributes:
    size: widths and lengths.
    dtype: of computation; picture processing, norms and softmax are float32.
    remat: of the blocks, one of `nn.remat.POLICIES`.
  """

  size: Pix2StructSize
  dtype: DTypeLike = jnp.float32
  remat: str = "none"

  @nn.compact
  def __call__(self, pixels: Float[Array, "B H W 3"]) -> Float[Array, "B h w C"]:
    """Encodes pixels normalised with CLIP's mean and deviation; no gradient reaches them."""
    size = self.size
    rows, columns = patch_counts(pixels.shape[1], pixels.shape[2], size)
    count = rows * columns
    patches = cut_patches(denormalise(jax.lax.stop_gradient(pixels)), size)
    self.sow("probes", "flattened_patches", patches)
    x = self._embed(patches, rows, columns)  # [B, M, C]
    self.sow("probes", "embeddings", x)
    visible = jnp.asarray(np.arange(size.max_patches) < count).reshape(1, 1, 1, -1)
    x, _ = stack(Block, size.depth, remat=self.remat)(size, self.dtype, name="blocks")(x, visible)
    x = RmsNorm(size.norm_eps, self.dtype, name="final_norm")(x)
    self.sow("probes", "final_layernorm", x)
    grid = x[:, :count].reshape(-1, rows, columns, size.width)
    return resize_align_corners(grid, size.out_side)

  def _embed(
    self, patches: Float[Array, "B M 2+P"], rows: int, columns: int
  ) -> Float[Array, "B M C"]:
    """Projects patch values and adds the embeddings of row and column; padding has number 0."""
    size = self.size
    x = nn.Dense(size.width, dtype=self.dtype, name="patches")(patches[..., 2:])
    numbers = np.zeros((2, size.max_patches), np.int32)
    numbers[:, : rows * columns] = np.indices((rows, columns)).reshape(2, -1) + 1
    for name, ids in zip(("row_embedding", "column_embedding"), numbers, strict=True):
      table = self.param(name, nn.initializers.normal(0.02), (size.table_length, size.width))
      x = x + table[ids].astype(self.dtype)[None]
    return x
