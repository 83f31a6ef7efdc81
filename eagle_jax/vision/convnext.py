"""ConvNeXt, whose last stage is what EAGLE reads: no norm, pooling or head behind it.

Source: ConvNeXt, https://arxiv.org/abs/2201.03545; the XXL widths of OpenCLIP.
"""

from __future__ import annotations

import dataclasses
import typing

import flax.linen as nn
import jax.numpy as jnp

from eagle_jax.nn.layers import LayerNorm, Mlp, PatchEmbed, gelu, stack

if typing.TYPE_CHECKING:
  from jax.typing import DTypeLike
  from jaxtyping import Array, Float


@dataclasses.dataclass(frozen=True, kw_only=True)
class ConvNextSize:
  """Widths and lengths of one ConvNeXt of four stages."""

  image_size: int  # pixels per side; 32 divides it
  depths: tuple[int, int, int, int]  # blocks of each stage
  dims: tuple[int, int, int, int]  # channels of each stage
  kernel: int = 7  # cells per side of the depthwise convolution
  mlp_ratio: int = 4  # of MLP width to channels
  norm_eps: float = 1e-5  # the XXL's; smaller models have 1e-6
  layer_scale: float = 1e-6  # what a fresh block is multiplied by

  @property
  def channels(self) -> int:
    """Channels of the grid."""
    return self.dims[-1]


SIZES = {
  "released": ConvNextSize(image_size=1024, depths=(3, 4, 30, 3), dims=(384, 768, 1536, 3072)),
  "demo": ConvNextSize(
    image_size=64,
    depths=(1, 1, 1, 1),
    dims=(8, 16, 32, 64),
    kernel=3,  # the grids have 16 to 2 cells per side, and CPUs are slow at depthwise work
    layer_scale=0.1,  # a short training from nothing cannot grow blocks that start at 1e-6
  ),
  "tiny": ConvNextSize(image_size=128, depths=(1, 2, 3, 1), dims=(8, 16, 32, 64)),
}


class Block(nn.Module):
  """Depthwise convolution, norm and MLP in a scaled residual, called by a scan.

  Attributes:
    size: kernel, ratio and constants.
    dtype: of computation.
  """

  size: ConvNextSize
  dtype: DTypeLike = jnp.float32

  @nn.compact
  def __call__(self, x: Float[Array, "B h w C"]) -> tuple[Float[Array, "B h w C"], None]:
    """Adds the scaled branch."""
    size, channels = self.size, x.shape[-1]
    branch = nn.Conv(
      channels,
      (size.kernel, size.kernel),
      feature_group_count=channels,
      dtype=self.dtype,
      name="depthwise",
    )(x)
    branch = LayerNorm(size.norm_eps, self.dtype, name="norm")(branch)
    branch = Mlp(size.mlp_ratio * channels, gelu, self.dtype, name="mlp")(branch)
    scale = self.param("layer_scale", nn.initializers.constant(size.layer_scale), (channels,))
    x = x + branch * scale.astype(self.dtype).reshape(1, 1, 1, -1)
    self.sow("probes", "block", x)
    return x, None


class Stage(nn.Module):
  """Blocks on one grid, after halving its sides except in the first stage.

  Attributes:
    size: constants of the network.
    number: which stage, from 0.
    dtype: of computation.
    remat: of the blocks, one of `nn.remat.POLICIES`.
  """

  size: ConvNextSize
  number: int
  dtype: DTypeLike
  remat: str

  @nn.compact
  def __call__(self, x: Float[Array, "B H W C"]) -> Float[Array, "B h w D"]:
    """Applies the stage, h = H/2 (H in stage 0)."""
    size = self.size
    if self.number > 0:
      x = LayerNorm(size.norm_eps, self.dtype, name="downsample_norm")(x)
      width = size.dims[self.number]
      x = PatchEmbed(width, 2, dtype=self.dtype, name="downsample_conv")(x)
      self.sow("probes", "downsample", x)
    depth = size.depths[self.number]
    x, _ = stack(Block, depth, remat=self.remat)(size, self.dtype, name="blocks")(x)
    return x


class ConvNext(nn.Module):
  """A ConvNeXt trunk; its grid has one cell per 32 pixels.

  Attributes:
    size: widths and lengths.
    dtype: of computation; norms are float32.
    remat: of the blocks, one of `nn.remat.POLICIES`.
  """

  size: ConvNextSize
  dtype: DTypeLike = jnp.float32
  remat: str = "none"

  @nn.compact
  def __call__(self, pixels: Float[Array, "B H W 3"]) -> Float[Array, "B h w C"]:
    """Encodes pixels normalised with CLIP's mean and deviation, h = H / 32."""
    size = self.size
    x = PatchEmbed(size.dims[0], 4, dtype=self.dtype, name="patches")(pixels)
    x = LayerNorm(size.norm_eps, self.dtype, name="patches_norm")(x)  # [B, H/4, W/4, D]
    self.sow("probes", "stem", x)
    for number in range(len(size.depths)):
      x = Stage(size, number, self.dtype, self.remat, name=f"stage_{number}")(x)
      self.sow("probes", f"stage{number}", x)
    return x
