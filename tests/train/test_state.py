"""The state: where parameters come from, how they are stored, and its way to disk and back."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from eagle_jax import checkpoint, config
from eagle_jax.errors import EagleError
from eagle_jax.sharding.mesh import make_mesh
from eagle_jax.train import state


def saved(folder, params):
  checkpoint.save_params(str(folder), params, {})
  return str(folder)


def strict(made, *start_from, **changes):
  """The experiment that reads from `start_from` and draws only what its stage calls fresh."""
  values = dict(vars(made.experiment), init_missing=False, start_from=start_from, **changes)
  return config.Experiment(**values)


def test_parameters_are_drawn_into_their_shardings(small):
  made = small(mesh=make_mesh(config.Mesh(data=2, fsdp=2, tensor=2)))
  params = state.starting_params(made.experiment, made.eagle, made.abstract)
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


def test_a_stage_starts_from_checkpoints_by_pattern_and_draws_its_own_part(small, tmp_path):
  made = small("pretrain")
  drawn = state.initialise(made.eagle, made.abstract, 3)
  marked = {path: jnp.full_like(array, 0.25) for path, array in drawn.items()}
  clip = saved(tmp_path / "clip", {p: a for p, a in marked.items() if "/clip/" in p})
  rest = saved(tmp_path / "rest", drawn)
  params = state.starting_params(
    strict(made, f"vision/clip/.*={clip}", rest), made.eagle, made.abstract
  )
  assert (params["vision/clip/class_embedding"] == 0.25).all()
  np.testing.assert_array_equal(params["language/head/kernel"], drawn["language/head/kernel"])
  # The projector is new in this stage even though the checkpoint holds one.
  assert (params["projector/layer_0/kernel"] != drawn["projector/layer_0/kernel"]).any()


def test_a_tensor_that_no_checkpoint_holds_is_an_error(small, tmp_path):
  made = small("finetune")
  drawn = state.initialise(made.eagle, made.abstract, 3)
  drawn.pop("vision/sam/neck_norm/scale")
  folder = saved(tmp_path / "less", drawn)
  with pytest.raises(EagleError, match=r"1 are not there: vision/sam/neck_norm/scale"):
    state.starting_params(strict(made, folder), made.eagle, made.abstract)


def test_starting_from_nothing_is_an_error_that_says_so(small):
  made = small("finetune")
  with pytest.raises(EagleError, match="starts from nothing"):
    state.starting_params(strict(made), made.eagle, made.abstract)


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
