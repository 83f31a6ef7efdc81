"""The recipe gives the bytes that the golden files were made with."""

import json
import zlib
from pathlib import Path

import numpy as np
import pytest

from tests.parity import recipe

SELFTEST = Path(__file__).parents[3] / "shared/oracle/recipe_selftest.json"


def crc(array):
  return zlib.crc32(np.ascontiguousarray(array).tobytes())


def test_weights_scale_by_the_end_of_their_name():
  assert recipe.scale("a.stages.0.blocks.1.weight", (8,)) == (0.3, 0.03)
  assert recipe.scale("a.stages.0.blocks.1.norm.weight", (8,)) == (1.0, 0.1)
  assert recipe.scale("b.attn.q_bias", (4, 4)) == (0.0, 0.02)
  assert recipe.scale("pos_embed", (1, 10, 4)) == (0.0, 0.2)
  assert recipe.scale("x.rel_pos_h", (5, 4)) == (0.0, 0.1)
  assert recipe.scale("fc.weight", (4, 49)) == (0.0, 0.7 / 7)


def test_a_derived_table_is_never_drawn():
  with pytest.raises(KeyError, match="derived"):
    recipe.weight("rope.freqs_cos", (4, 4))


def test_salt_and_name_change_the_numbers():
  first = recipe.weight("fc.weight", (3, 4))
  assert not np.array_equal(first, recipe.weight("fc.weight", (3, 4), salt="x"))
  assert not np.array_equal(recipe.image("a", 8, 9), recipe.image("b", 8, 9))


@pytest.mark.skipif(not SELFTEST.exists(), reason="the oracle's self-test is not here")
def test_recipe_equals_the_oracle():
  told = json.loads(SELFTEST.read_text())
  parts = [part for part in told.values() if isinstance(part, dict) and "weights" in part]
  assert parts
  for part in parts:
    salt = part["salt"]
    for key, want in part["weights"].items():
      assert crc(recipe.weight(key, want["shape"], salt)) == want["crc32_of_bytes"], key
    for name, want in part["images"].items():
      picture = recipe.image(name, *want["shape"][:2], salt)
      assert crc(picture) == want["crc32_of_bytes"], name
      # The oracle's pixels are channels first.
      planes = recipe.pixels(picture).transpose(2, 0, 1)
      assert crc(planes) == want["crc32_of_pixels"], name
    for name, want in part["token_ids"].items():
      assert list(recipe.token_ids(name, len(want), 97, salt=salt)) == want, name
