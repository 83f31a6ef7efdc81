"""EVA-02-L as trained for detection: windowed and global blocks, two kinds of positions.

Absolute positions come from the 14x14 grid of pre-training, resampled; rotary ones turn
queries and keys in every block. There is no norm after the last block.

Source: EVA-02 (arXiv 2303.11331), section 2; EAGLE, vision_models/eva_vit.py, EVAVITwConv.
"""

from __future__ import annotations

import dataclasses
import typing

import flax.linen as nn
import jax
import jax.numpy as jnp

from eagle_jax.nn import remat
from eagle_jax.nn.attention import attend
from eagle_jax.nn.layers import LayerNorm, PatchEmbed
from eagle_jax.nn.layout import Layout
from eagle_jax.nn.resize import resize_cubic
from eagle_jax.nn.rotary import apply_rotary_pairs, rotary_grid
from eagle_jax.nn.stack import Blocks, apply_blocks
from eagle_jax.nn.windows import partition, unpartition
from eagle_jax.sharding.activations import hold

if typing.TYPE_CHECKING:
  from jax.typing import DTypeLike
  from jaxtyping import Array, Float, Float32

  Tables = tuple[Float32[Array, "T d"], Float32[Array, "T d"]]

EPS = 1e-6  # of every norm
WINDOW, GLOBAL = "window", "global"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Eva02Size:
  """Numbers that make one EVA-02."""

  image_size: int  # pixels per side
  patch: int  # pixels per side; divides image_size
  width: int
  num_heads: int
  kinds: tuple[str, ...]  # of every block: "window" or "global"
  window: int  # cells per side
  pretrain_side: int  # cells per side of the table of absolute positions

  @property
  def channels(self) -> int:
    """Channels C of the grid [B, h, w, C] it gives."""
    return self.width

  @property
  def grid_side(self) -> int:
    """Cells h = w per side of the grid [B, h, w, C] it gives."""
    return self.image_size // self.patch

  @property
  def head_dim(self) -> int:
    """Channels d of a head; queries are [M, T, H, d]."""
    return self.width // self.num_heads

  @property
  def mlp_width(self) -> int:
    """Hidden channels of the gated MLP, [B, H, W, mlp_width]: 8/3 of the width rounded down."""
    return self.width * 8 // 3

  @property
  def layout(self) -> Layout:
    """How the blocks are stacked."""
    return Layout(self.kinds)


SIZES: dict[str, Eva02Size] = {
  "released": Eva02Size(
    image_size=1024,
    patch=16,
    width=1024,
    num_heads=16,
    kinds=(WINDOW, WINDOW, GLOBAL) * 8,
    window=16,
    pretrain_side=14,
  ),
  # The small golden files; the window of 4 divides the grid of 8.
  "tiny": Eva02Size(
    image_size=128,
    patch=16,
    width=32,
    num_heads=2,
    kinds=(WINDOW, WINDOW, GLOBAL, WINDOW),
    window=4,
    pretrain_side=3,
  ),
  "demo": Eva02Size(
    image_size=64,
    patch=8,
    width=64,
    num_heads=2,
    kinds=(WINDOW, GLOBAL),
    window=4,
    pretrain_side=4,
  ),
}


class Attention(nn.Module):
  """Self-attention with rotary positions; queries and values have a bias, keys none.

  Attributes:
    size: of the expert.
    dtype: of computation; rotation and softmax are float32.
  """

  size: Eva02Size
  dtype: DTypeLike

  @nn.compact
  def __call__(self, x: Float[Array, "M T C"], tables: Tables) -> Float[Array, "M T C"]:
    """Mixes the T cells of each of M windows or grids."""
    heads = (*x.shape[:2], self.size.num_heads, self.size.head_dim)
    place = ("pictures", None, "heads")
    query, key, value = (
      hold(nn.Dense(self.size.width, use_bias=bias, dtype=self.dtype, name=name)(x), *place)
      for name, bias in (("query", True), ("key", False), ("value", True))
    )  # each [M, T, C]
    query, key = (apply_rotary_pairs(each.reshape(heads), *tables) for each in (query, key))
    mixed = attend(query, key, value.reshape(heads), scale=self.size.head_dim**-0.5)
    mixed = hold(mixed.reshape(x.shape), *place)
    return nn.Dense(self.size.width, dtype=self.dtype, name="out")(mixed)


class SwiGlu(nn.Module):
  """Gated MLP with a norm on its hidden channels: `down(norm(silu(gate(x)) * up(x)))`.

  Attributes:
    width: hidden channels.
    dtype: of computation.
  """

  width: int
  dtype: DTypeLike

  @nn.compact
  def __call__(self, x: Float[Array, "B H W C"]) -> Float[Array, "B H W C"]:
    """Applies it to every cell."""
    gate = nn.Dense(self.width, dtype=self.dtype, name="gate")(x)  # [B, H, W, width]
    up = nn.Dense(self.width, dtype=self.dtype, name="up")(x)  # [B, H, W, width]
    gate, up = remat.name(gate, "hidden"), remat.name(up, "hidden")
    hidden = LayerNorm(EPS, self.dtype, name="norm")(jax.nn.silu(gate) * up)
    return nn.Dense(x.shape[-1], dtype=self.dtype, name="down")(hidden)


class Block(nn.Module):
  """A residual block over windows or over the whole grid.

  Windows that do not divide the grid are filled up with zeros after the norm, which
  nothing masks: such a cell has a zero key, and the value's bias for its value.

  Attributes:
    kind: "window" or "global".
    size: of the expert.
    dtype: of computation.
  """

  kind: str
  size: Eva02Size
  dtype: DTypeLike

  @nn.compact
  def __call__(
    self, x: Float[Array, "B H W C"], tables: Tables
  ) -> tuple[Float[Array, "B H W C"], None]:
    """Applies attention, then the MLP; the None makes a step of a scan of it."""
    side = self.size.window if self.kind == WINDOW else x.shape[1]
    cells = partition(LayerNorm(EPS, self.dtype, name="attention_norm")(x), side)
    tokens = cells.reshape(cells.shape[0], side * side, cells.shape[-1])  # [M, T, C]
    tokens = Attention(self.size, self.dtype, name="attention")(tokens, tables)
    x = x + unpartition(tokens.reshape(cells.shape), x.shape[1], x.shape[2])  # [B, H, W, C]
    mlp = SwiGlu(self.size.mlp_width, self.dtype, name="mlp")
    x = x + mlp(LayerNorm(EPS, self.dtype, name="mlp_norm")(x))
    self.sow("probes", "block", x)
    return x, None


class Eva02(nn.Module):
  """The whole expert.

  Attributes:
    size: one of SIZES, or another.
    dtype: of computation; norms, softmax, rotation and position table are float32.
    remat: of the blocks, one of `nn.remat.POLICIES`.
  """

  size: Eva02Size
  dtype: DTypeLike = jnp.float32
  remat: str = "none"

  @nn.compact
  def __call__(self, pixels: Float[Array, "B P P 3"]) -> Float[Array, "B H W C"]:
    """Encodes pictures normalised with CLIP's mean and deviation, H = W = P / patch."""
    size = self.size
    x = PatchEmbed(size.width, size.patch, dtype=self.dtype, name="patches")(pixels)
    self.sow("probes", "patch_embed", x)
    x = x + self._positions(x.shape[1]).astype(self.dtype)
    self.sow("probes", "patch_embed_plus_pos", x)
    sides = {WINDOW: size.window, GLOBAL: x.shape[1]}
    tables = {kind: rotary_grid(side, size.head_dim) for kind, side in sides.items()}
    blocks = Blocks(Block, size, self.dtype, self.remat)
    return apply_blocks(size.layout, blocks, x, operands=tables)

  def _positions(self, side: int) -> Float32[Array, "1 side side C"]:
    """Absolute positions resampled to [1, side, side, C]; row 0 was a class token's."""
    rows = self.size.pretrain_side**2
    shape = (1, 1 + rows, self.size.width)
    table = self.param("positions", nn.initializers.normal(0.02), shape)
    grid = table[:, 1:].reshape(1, self.size.pretrain_side, self.size.pretrain_side, -1)
    return resize_cubic(grid.astype(jnp.float32), side)
