"""Updates that are not made: the state stays as it was, bit by bit."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from eagle_jax import config
from eagle_jax.sharding.mesh import make_mesh
from eagle_jax.train import skipping, state, step
from tests.train import bigram

WATCHFUL = dataclasses.replace(bigram.SHARP, spike_factor=3.0)


@pytest.fixture
def mesh():
  return make_mesh(config.Mesh(), jax.devices()[:1])


def _parts(current):
  return jax.device_get((current.trained, current.opt_state))


def _assert_equal(found, wanted):
  for a, b in zip(jax.tree.leaves(found), jax.tree.leaves(wanted), strict=True):
    assert a.tobytes() == b.tobytes()


def _ready(settings, mesh):
  tx = bigram.make_optimizer(settings)
  current = bigram.make_state(tx, mesh)
  function = step.make(bigram.Bigram(), tx, settings)
  return tx, current, step.compile_step(function, current, bigram.make_batch())


def test_what_is_no_number_changes_nothing_but_the_count(mesh):
  _, current, update = _ready(bigram.SHARP, mesh)
  before = _parts(current)
  bad = {
    "loss": bigram.make_batch(masked=True),  # no target: 0/0
    "grad_norm": bigram.make_batch(bright=True),
  }
  for number, (cause, batch) in enumerate(bad.items(), start=1):
    current, measured = update(current, batch)
    assert float(measured["skipped"]) == 1
    finite = {name for name in ("loss", "grad_norm") if np.isfinite(measured[name])}
    assert finite == {"loss", "grad_norm"} - {cause}
    assert int(current.step) == number
    _assert_equal(_parts(current), before)
  current, measured = update(current, bigram.make_batch())
  assert float(measured["skipped"]) == 0
  assert (np.asarray(current.trained["language/table"]) != before[0]["language/table"]).any()


def test_an_update_that_is_made_is_what_it_would_be_unguarded(mesh, monkeypatch):
  # In micro-batches, whose loop keeps the compiler from fusing gradient and update.
  settings = dataclasses.replace(bigram.SHARP, accumulate=2)
  _, current, update = _ready(settings, mesh)
  monkeypatch.setattr(skipping, "harmless", lambda *_, **__: jnp.bool_(True))
  _, expected, unguarded = _ready(settings, mesh)
  assert "conditional(" in update.as_text()
  assert "conditional(" not in unguarded.as_text()
  for _ in range(3):
    current, _ = update(current, bigram.make_batch())
    expected, _ = unguarded(expected, bigram.make_batch())
  _assert_equal(_parts(current), _parts(expected))


def test_nothing_is_copied_to_be_kept(mesh):
  _, current, update = _ready(bigram.SHARP, mesh)
  parameters = sum(leaf.nbytes for leaf in jax.tree.leaves(current.trained))
  memory = update.memory_analysis()
  assert memory.alias_size_in_bytes >= 3 * parameters  # they and both moments, in place
  activations = 4 * 12 * bigram.WORDS * 4
  assert memory.temp_size_in_bytes < 1.5 * parameters + 6 * activations  # gradients, no second


def _usual(current):
  return next(part for part in current.opt_state if isinstance(part, skipping.UsualNorm))


def test_a_spike_is_skipped_and_is_not_part_of_what_is_usual(mesh):
  _, current, update = _ready(WATCHFUL, mesh)
  norms = []
  for _ in range(3):
    current, measured = update(current, bigram.make_batch())
    norms.append(float(measured["grad_norm"]))
  np.testing.assert_allclose(_usual(current).mean, np.mean(norms), rtol=1e-6)
  assert int(_usual(current).seen) == 3

  def with_usual(mean, count):
    usual = skipping.UsualNorm(jnp.float32(mean), jnp.int32(count))
    rest = (part for part in current.opt_state if not isinstance(part, skipping.UsualNorm))
    return dataclasses.replace(jax.tree.map(jnp.copy, current), opt_state=(usual, *rest))

  low = norms[-1] / 10
  for mean, count, skipped in ((low, 1, 0), (low, skipping.WINDOW, 1), (norms[-1], 99, 0)):
    after, measured = update(jax.tree.map(jnp.copy, with_usual(mean, count)), bigram.make_batch())
    assert float(measured["skipped"]) == skipped, (mean, count)
    assert int(_usual(after).seen) == count + 1 - skipped


def test_what_is_usual_goes_through_a_checkpoint_and_is_absent_where_nothing_looks(mesh):
  _, current, update = _ready(WATCHFUL, mesh)
  current, _ = update(current, bigram.make_batch())
  beside = jax.device_get(state.beside_params(current))
  again = state.from_parts(current.params(), beside, current)
  assert _usual(again) == _usual(jax.device_get(current))
  plain = bigram.make_state(bigram.make_optimizer(bigram.SHARP), mesh)
  kept = len(jax.tree.leaves(state.beside_params(plain)))
  assert len(jax.tree.leaves(beside)) == kept + 2
