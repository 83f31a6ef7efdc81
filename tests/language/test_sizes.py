import jax
import jax.numpy as jnp
import pytest

from eagle_jax.language import LANGUAGE_MODELS
from eagle_jax.language.llama import Llama

TOTALS = {
  "vicuna_7b": 6_738_415_616,
  "vicuna_13b": 13_015_864_320,
  "llama3_8b": 8_030_261_248 + 2 * 4096,  # the appended <pad> row of both tables
  "yi_34b": 34_388_917_248,
  "smollm2_135m": 134_515_008,
}


@pytest.mark.parametrize("name", TOTALS)
def test_totals_are_those_of_the_public_models(name):
  model = Llama(LANGUAGE_MODELS[name])

  def init():
    row = jnp.zeros((1, 2), jnp.int32)
    whole = lambda m: m.logits(m(m.embed(row), row == 0, row))
    return model.init(jax.random.key(0), method=whole)["params"]

  assert sum(leaf.size for leaf in jax.tree.leaves(jax.eval_shape(init))) == TOTALS[name]


def test_decoder_of_the_flagships_groups_its_heads():
  for name, size in LANGUAGE_MODELS.items():
    assert size.num_heads % size.num_kv_heads == 0, name
    assert size.num_heads * size.head_dim == size.width, name
