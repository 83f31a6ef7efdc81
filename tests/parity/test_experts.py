"""Every vision expert against the original, tensor by tensor, for every golden file found."""

import functools
import os
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from eagle_jax.nn.pixels import denormalise
from eagle_jax.nn.resize import resize_align_corners
from eagle_jax.vision import pix2struct
from tests.parity import experts, goldens, recipe

SIZE = pix2struct.SIZES["released"]
cut = jax.jit(functools.partial(pix2struct.cut_patches, size=SIZE))


@pytest.mark.parametrize("golden", goldens.discover("expert"), ids=str)
def test_an_expert_gives_every_tensor_of_its_golden(golden):
  beyond = []
  for tensor, found in experts.tensors(golden):
    beyond += [m for m in goldens.compare(golden, tensor, found) if not m.error <= m.limit]
  assert not beyond


@pytest.mark.parametrize("golden", goldens.discover("preprocess_experts"), ids=str)
def test_experts_prepare_their_pictures_as_the_original_does(golden):
  pixels = jnp.asarray(goldens.pictures(golden))
  patches = cut(jax.jit(denormalise)(pixels))
  for tensor in golden.names:
    if tensor.startswith("clip_"):
      side = int(tensor.removeprefix("clip_"))
      found = resize_align_corners(pixels, side).transpose(0, 3, 1, 2)
    elif tensor == "pix2struct_flattened_patches":
      found = patches
    elif tensor == "pix2struct_attention_mask":
      # Upstream's own rule: a row is padding if its sum is zero.
      found = (np.asarray(patches).sum(axis=-1) != 0).astype(np.float32)
    else:
      height, width = map(int, re.findall(r"\d+", tensor)[-2:])
      found = np.array(pix2struct.patch_counts(height, width, SIZE), np.float32)
      if not tensor.endswith("_rows_cols"):
        picture = recipe.image(f"px_ns_{height}_{width}", height, width, golden.salt)
        found = cut(jnp.asarray(picture, jnp.float32)[None])
    goldens.assert_close(golden, tensor, found)


def test_the_small_files_of_every_expert_are_found():
  found = {golden.meta["tower"] for golden in goldens.discover("expert")}
  if "EAGLE_GOLDENS" in os.environ:
    assert found
  else:
    assert found >= {"clip", "convnext", "sam", "eva", "pix"}
