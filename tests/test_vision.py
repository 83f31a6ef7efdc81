import subprocess
import sys

import jax
import jax.numpy as jnp
import pytest

from eagle_jax import config, vision
from eagle_jax.convert.rules import Table
from eagle_jax.errors import EagleError
from eagle_jax.vision.eva02 import Eva02
from eagle_jax.vision.sam import Sam

NAMES = tuple(vision.EXPERTS)


def test_experts_of_the_flagship_come_first_in_its_order():
  flagship = config.Model().experts
  assert NAMES[: len(flagship)] == flagship
  assert vision.EXPERTS["sam"].module is Sam
  assert vision.EXPERTS["eva02"].module is Eva02


@pytest.mark.parametrize("name", NAMES)
def test_every_expert_has_sizes_and_a_table_for_each(name):
  expert = vision.EXPERTS[name]
  assert {"released", "demo"} <= set(expert.sizes)
  for size in expert.sizes.values():
    assert isinstance(expert.table(size), Table)
    assert hash(size) == hash(size)  # sizes are fields of Flax modules


@pytest.mark.parametrize("name", NAMES)
def test_the_demo_size_takes_small_pictures_and_gives_the_channels_it_says(name):
  expert = vision.EXPERTS[name]
  size = expert.sizes["demo"]
  assert size.image_size == 64
  module = expert.module(size=size, dtype=jnp.bfloat16, remat="block")
  pixels = jax.ShapeDtypeStruct((2, 64, 64, 3), jnp.float32)
  grid, variables = jax.eval_shape(module.init_with_output, jax.random.key(0), pixels)
  assert (grid.shape[0], grid.shape[3], grid.ndim) == (2, size.channels, 4)
  assert grid.dtype == jnp.bfloat16
  assert {leaf.dtype for leaf in jax.tree.leaves(variables["params"])} == {jnp.dtype("float32")}


def test_parse_reads_name_and_size():
  assert vision.parse("sam") == ("sam", vision.EXPERTS["sam"].sizes["released"])
  assert vision.parse("eva02@tiny") == ("eva02", vision.EXPERTS["eva02"].sizes["tiny"])


@pytest.mark.parametrize(
  ("text", "message"),
  [
    ("eva2", "no vision expert is called 'eva2', did you mean 'eva02'"),
    ("sam@tny", "no size of the vision expert 'sam' is called 'tny', did you mean 'tiny'"),
    ("sam@", "no size follows in 'sam@'"),
  ],
)
def test_parse_names_the_nearest(text, message):
  with pytest.raises(EagleError, match=message):
    vision.parse(text)


def test_neither_the_names_nor_a_weight_table_import_jax():
  lines = (
    "import sys",
    "import eagle_jax.vision.weights.sam, eagle_jax.vision.weights.eva02",
    "assert eagle_jax.vision.EXPERTS",
    "sys.exit('jax' in sys.modules or 'flax' in sys.modules)",
  )
  assert subprocess.run([sys.executable, "-c", "\n".join(lines)], check=False).returncode == 0
