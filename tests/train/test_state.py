"""The state: how parameters are drawn and stored, and its way to disk and back."""

import contextlib
import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from eagle_jax import checkpoint, config
from eagle_jax.plan import collectives, hlo
from eagle_jax.sharding.mesh import make_mesh, place_batch
from eagle_jax.train import state, step
from tests.checkpoint import saver
from tests.train.conftest import MODEL, Small, rows_of


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
  mixed = config.Experiment(name="m", model=config.Model(frozen_dtype="bfloat16"))
  abstract = state.abstract_params(made.eagle, mixed, made.chosen, mesh=made.mesh)
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


@pytest.fixture(scope="module")
def layouts():
  """With experts spread and whole: the stage, its state after an update, measured, sent."""
  mesh, found = make_mesh(config.Mesh()), {}
  model = dataclasses.replace(MODEL, experts=("clip@demo",), language="tiny")
  rows = rows_of(8)
  batch = place_batch(
    dataclasses.replace(rows, tokens=np.where(rows.tokens > 96, 9, rows.tokens)), mesh
  )
  for whole in ((), ("vision/.*",)):
    made = Small("pretrain", mesh=mesh, whole=whole, model=model, unlock=(r".*/mlp/fc1/kernel",))
    draw = np.random.default_rng(0)
    params = {
      path: jax.device_put(draw.normal(0, 0.1, leaf.shape).astype(leaf.dtype), leaf.sharding)
      for path, leaf in made.abstract.items()
    }
    current = state.create(params, made.chosen, made.tx, seed=0, mesh=mesh)
    update = step.compile_step(made.step, current, batch)
    after, measured = update(current, batch)
    sent = collectives.find(hlo.parse(update.as_text()), dict(mesh.shape))
    found[bool(whole)] = made, after, jax.device_get(measured), sent
  return found


def test_what_is_held_whole_is_never_gathered(layouts):
  kinds = {
    whole: {one.kind for one in sent if "vision/clip" in one.place}
    for whole, (*_, sent) in layouts.items()
  }
  assert "all-gather" in kinds[False]
  assert kinds[True] == {"all-reduce"}  # of the gradients of what is trained
  for path, leaf in layouts[True][1].params().items():
    held = leaf.addressable_shards[0].data.size
    assert held == leaf.size or not path.startswith("vision/"), path


def test_what_is_held_whole_changes_no_number(layouts):
  (_, spread, measured, _), (_, whole, same, _) = layouts[False], layouts[True]
  for name in measured:
    np.testing.assert_allclose(same[name], measured[name], rtol=1e-5, err_msg=name)
  ours, theirs = (jax.device_get(one.opt_state[0].mu) for one in (whole, spread))
  difference = optax.tree.norm(jax.tree.map(np.subtract, ours, theirs))
  assert difference <= 1e-5 * optax.tree.norm(theirs)


@pytest.mark.parametrize("whole", [False, True])
def test_a_checkpoint_of_one_layout_is_restored_in_the_other(layouts, tmp_path, whole):
  after, (other, *_) = layouts[whole][1], layouts[not whole]
  blank = state.abstract_state(other.abstract, other.chosen, other.tx, mesh=other.mesh)
  with contextlib.closing(checkpoint.Checkpoints(str(tmp_path), keep=1)) as checkpoints:
    beside = state.beside_params(after)
    data = saver.Stream()
    checkpoints.save(1, params=after.params(), optimizer=beside, data=data, meta={}, last=True)
    params, rest = checkpoints.restore(
      1, params=other.abstract, optimizer=state.beside_params(blank), data=data
    )
  restored = state.from_parts(params, rest, blank)
  jax.tree.map(np.testing.assert_array_equal, restored, after)
  for got, want in zip(jax.tree.leaves(restored), jax.tree.leaves(blank), strict=True):
    assert got.sharding.is_equivalent_to(want.sharding, got.ndim)
