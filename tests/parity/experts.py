"""One expert's golden run through table, engine and module, with every tensor it stores."""

import functools
import re
from collections.abc import Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from eagle_jax import vision
from eagle_jax.nn.resize import resize_align_corners
from eagle_jax.nn.rotary import rotary_grid
from eagle_jax.nn.stack import block_output
from tests.parity import goldens, sizes

PREFIX = "vision_tower."
ROUNDED = "_with_bf16_rounded_rope_tables"

RENAMED = {
  "stage0_block0": ("stage_0", "blocks", "block"),
  "stage1_downsample": ("stage_1", "downsample"),
}


def tensors(golden: goldens.Golden) -> Iterator[tuple[str, np.ndarray]]:
  """Yields every tensor the golden names, as it lays it out.

  Raises:
    AssertionError: for a name nothing here gives; it must not go unchecked.
  """
  name, size = sizes.expert(golden.meta)
  expert = vision.EXPERTS[name]
  module = expert.module(size)
  pixels = _pixels(golden, size)
  init = functools.partial(module.init, jax.random.key(0))
  abstract = jax.eval_shape(init, pixels)["params"]
  table = expert.table(size).prefixed(PREFIX, "")
  params = goldens.convert(goldens.weights(golden), table, abstract)
  grid, kept = jax.jit(functools.partial(module.apply, mutable=["probes"]))(
    {"params": params}, pixels
  )
  for tensor in golden.names:
    if tensor.endswith(ROUNDED):
      found = _rounded(module, params, pixels)
    else:
      found = _tensor(golden, tensor, size, (pixels, grid, kept["probes"]))
    yield tensor, _laid_out(np.asarray(found), golden, tensor)


def _pixels(golden: goldens.Golden, size: Any) -> jax.Array:
  """Returns what the module is fed: the pictures, at released sizes brought to the expert's."""
  pictures = jnp.asarray(goldens.pictures(golden))
  if "input_after_resize" in golden:
    return resize_align_corners(pictures, size.image_size)
  return pictures


def _tensor(golden: goldens.Golden, tensor: str, size: Any, run: tuple[Any, Any, Any]) -> Any:
  """Returns one tensor of a run (pixels, grid, probes), channels last."""
  pixels, grid, probes = run
  if tensor == "tower_out":
    return grid
  if tensor == "common_grid":
    return resize_align_corners(grid, golden.meta["grid"])
  if tensor == "input_after_resize":
    return pixels
  if table := re.fullmatch(r"vision_tower\.rope_(win|glb)\.freqs_(cos|sin)", tensor):
    side = size.window if table[1] == "win" else size.grid_side
    return rotary_grid(side, size.head_dim)[("cos", "sin").index(table[2])]
  if block := re.fullmatch(r"block_(last|\d+)(_first_global)?", tensor):
    return _block(probes, size, block[1])
  if stage := re.fullmatch(r"stage(\d+)_block(\d+)", tensor):
    return probes[f"stage_{stage[1]}"]["blocks"]["block"][0][int(stage[2])]
  if stage := re.fullmatch(r"stage(\d+)_downsample", tensor):
    return probes[f"stage_{stage[1]}"]["downsample"][0]
  assert tensor in probes, f"{golden}: nothing here gives the tensor {tensor!r}"
  return probes[tensor][0]


def _block(probes: Any, size: Any, number: str) -> Any:
  """Returns what a block gave, from stacks of equal or of alternating blocks."""
  if hasattr(size, "layout"):
    n = size.layout.depth - 1 if number == "last" else int(number)
    return block_output(probes, size.layout, n)
  return probes["blocks"]["block"][0][-1 if number == "last" else int(number)]


def _rounded(module: Any, params: Any, pixels: jax.Array) -> Any:
  """Returns the grid with rotary tables rounded to bfloat16, as upstream's training has them."""

  def rounding(*args: Any) -> tuple[jax.Array, ...]:
    return tuple(t.astype(jnp.bfloat16).astype(jnp.float32) for t in rotary_grid(*args))

  with pytest.MonkeyPatch.context() as patch:
    patch.setattr("eagle_jax.vision.eva02.rotary_grid", rounding)
    return jax.jit(module.apply)({"params": params}, pixels)


def _laid_out(found: np.ndarray, golden: goldens.Golden, tensor: str) -> np.ndarray:
  """Returns an array as the file has it: a grid as tokens or channels first."""
  if found.ndim == 4 and golden.ndim(tensor) == 3:
    return found.reshape(found.shape[0], -1, found.shape[-1])
  # The files give what the original's modules gave: ConvNeXt and every output channels first.
  first = golden.meta["tower"] == "convnext" or tensor.startswith(("tower_out", "input_"))
  return found.transpose(0, 3, 1, 2) if found.ndim == 4 and first else found
