"""The state: how parameters are drawn and stored, and its way to disk and back."""

import jax
import jax.numpy as jnp
import numpy as np

from eagle_jax import config
from eagle_jax.sharding.mesh import make_mesh
from eagle_jax.train import state


def test_parameters_are_drawn_into_their_shardings(small):
  made = small(mesh=make_mesh(config.Mesh(data=2, fsdp=2, tensor=2)))
  params = state.initialise(made.eagle, made.abstract, 0)
  assert set(params) == set(made.abstract)
  for path, leaf in made.abstract.items():
    assert params[path].sharding == leaf.sharding
    assert params[path].dtype == leaf.dtype


def test_the_seed_decides_what_is_drawn_whatever_the_mesh(small):
  one, many = small(), small(mesh=make_mesh(config.Mesh(fsdp=4, tensor=2)))
  path = "language/head/kernel"
  drawn = [state.initialise(m.eagle, {path: m.abstract[path]}, 7)[path] for m in (one, many)]
  np.testing.assert_array_equal(*drawn)
  other = state.initialise(one.eagle, {path: one.abstract[path]}, 8)[path]
  assert (np.asarray(other) != drawn[0]).any()


def test_frozen_parameters_are_stored_in_their_own_dtype(small):
  made = small("pretrain")
  settings = config.Model(frozen_dtype="bfloat16", param_dtype="float32")
  abstract = state.abstract_params(made.eagle, settings, made.chosen, mesh=made.mesh)
  kinds = {path: leaf.dtype for path, leaf in abstract.items()}
  assert kinds["projector/layer_0/kernel"] == jnp.float32
  assert kinds["language/head/kernel"] == jnp.bfloat16


def test_a_state_survives_being_taken_apart(small):
  made = small()
  current = made.fresh()
  parts = state.beside_params(current)
  again = state.from_parts(current.params(), parts, current)
  assert jax.tree.structure(again) == jax.tree.structure(current)
  jax.tree.map(np.testing.assert_array_equal, again, current)


def test_the_abstract_state_describes_the_real_one(small):
  made = small("pretrain", mesh=make_mesh(config.Mesh(data=2, fsdp=2, tensor=2)))
  abstract = state.abstract_state(made.abstract, made.chosen, made.tx, mesh=made.mesh)
  real = made.fresh()
  assert jax.tree.structure(abstract) == jax.tree.structure(real)
  for want, got in zip(jax.tree.leaves(abstract), jax.tree.leaves(real), strict=True):
    assert (want.shape, want.dtype) == (got.shape, got.dtype)
    assert want.sharding.is_equivalent_to(got.sharding, got.ndim)
