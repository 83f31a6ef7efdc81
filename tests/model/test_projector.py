import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from eagle_jax.errors import EagleError
from eagle_jax.model.projector import Projector, num_layers


@pytest.mark.parametrize(
  ("kind", "layers"),
  [("identity", 0), ("linear", 1), ("mlp1x_gelu", 1), ("mlp2x_gelu", 2), ("mlp12x_gelu", 12)],
)
def test_the_name_says_the_number_of_layers(kind, layers):
  assert num_layers(kind) == layers


@pytest.mark.parametrize("kind", ["mlp2x_relu", "mlp0x_gelu", "mlp2x_gelu ", "MLP2x_gelu", ""])
def test_an_unknown_name_is_an_error(kind):
  with pytest.raises(EagleError, match="no projector is called"):
    num_layers(kind)


def test_the_error_names_the_nearest():
  with pytest.raises(EagleError, match="did you mean 'mlp2x_gelu'"):
    num_layers("mlp2_gelu")


def test_parameters_are_kernel_and_bias_per_layer():
  params = Projector("mlp3x_gelu", 4).init(jax.random.key(0), jnp.ones((1, 2, 6)))["params"]
  shapes = jax.tree.map(jnp.shape, params)
  inner = {"kernel": (4, 4), "bias": (4,)}
  assert shapes == {
    "layer_0": {"kernel": (6, 4), "bias": (4,)},
    "layer_1": inner,
    "layer_2": inner,
  }


def test_gelu_is_the_exact_one_and_stands_between_the_layers_only():
  tokens = np.linspace(-3, 3, 10, dtype=np.float32).reshape(1, 5, 2)
  eye = {"kernel": jnp.eye(2), "bias": jnp.zeros(2)}
  once = Projector("linear", 2).apply({"params": {"layer_0": eye}}, jnp.asarray(tokens))
  np.testing.assert_allclose(once, tokens, rtol=1e-6)
  twice = Projector("mlp2x_gelu", 2).apply(
    {"params": {"layer_0": eye, "layer_1": eye}}, jnp.asarray(tokens)
  )
  exact = np.vectorize(lambda x: 0.5 * x * (1 + math.erf(x / math.sqrt(2))))(tokens)
  np.testing.assert_allclose(twice, exact, atol=1e-6)


def test_identity_passes_tokens_through_and_holds_nothing():
  tokens = jnp.arange(12.0).reshape(1, 4, 3)
  out, variables = Projector("identity", 3).init_with_output(jax.random.key(0), tokens)
  np.testing.assert_array_equal(out, tokens)
  assert variables == {}


def test_identity_between_two_widths_is_refused():
  with pytest.raises(EagleError, match="3 and 5"):
    Projector("identity", 5).init(jax.random.key(0), jnp.ones((1, 4, 3)))


def test_computes_in_its_dtype_with_float32_parameters():
  projector = Projector("mlp2x_gelu", 4, dtype=jnp.bfloat16)
  out, variables = projector.init_with_output(jax.random.key(0), jnp.ones((1, 2, 6)))
  assert out.dtype == jnp.bfloat16
  assert {leaf.dtype for leaf in jax.tree.leaves(variables)} == {jnp.dtype("float32")}
