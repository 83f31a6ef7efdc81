"""Micro-batches: with weights gathered once they send less and give the same update."""

import dataclasses

import jax
import numpy as np
import optax
import pytest

from eagle_jax import config
from eagle_jax.model import eagle as eagle_lib
from eagle_jax.plan import collectives, hlo
from eagle_jax.sharding import rules
from eagle_jax.sharding.mesh import make_mesh, place_batch
from eagle_jax.train import optimizer, origins, stages, state, step
from tests.train.conftest import rows_of

MODEL = config.Model(
  experts=("clip@demo",),
  language="tiny",
  image_size=64,
  grid_side=2,
  dtype="float32",
  frozen_dtype="float32",
)
COUNT = 4


@pytest.fixture(scope="module")
def both():
  """For gathering each time and once: the program, the running means and what was measured."""
  mesh = make_mesh(config.Mesh(fsdp=4, tensor=2))
  eagle = eagle_lib.build(MODEL)
  settings = config.Optimizer(peak_lr=1e-3, warmup_fraction=0.0, accumulate=COUNT)
  experiment = config.Experiment(name="a", model=MODEL, init_missing=True, batch_size=16)
  chosen = stages.treatments(experiment, state.paths(eagle))
  abstract = state.abstract_params(eagle, experiment, chosen, mesh=mesh)
  rows = rows_of(16)
  batch = place_batch(
    dataclasses.replace(rows, tokens=np.where(rows.tokens > 96, 9, rows.tokens)), mesh
  )
  found = {}
  for once in (False, True):
    changed = dataclasses.replace(settings, gather_once=once)
    tx = optimizer.make(changed, 10, chosen)
    params, _ = origins.parameters(experiment, eagle, abstract)
    current = state.create(params, chosen, tx, seed=0, mesh=mesh)
    update = step.compile_step(step.make(eagle, tx, changed, params=abstract), current, batch)
    after, measured = update(current, batch)
    found[once] = update.as_text(), jax.device_get((after.opt_state[0].mu, measured))
  shapes = {path: leaf.shape for path, leaf in abstract.items()}
  return mesh, shapes, found


def _gathered(text, mesh):
  """Bytes of weights that each device sends to the others along fsdp."""
  sent = collectives.find(hlo.parse(text), dict(mesh.shape))
  return sum(one.total for one in sent if one.kind == "all-gather" and one.axes == ("fsdp",))


def test_weights_gathered_once_send_one_share_instead_of_one_per_micro_batch(both):
  mesh, shapes, found = both
  spread = {p: s for p, s in rules.specs(shapes, mesh.shape).items() if "fsdp" in s}
  per_device = 4 * sum(rules.share(shapes[p], spec, mesh.shape) for p, spec in spread.items())
  each, once = (_gathered(found[way][0], mesh) for way in (False, True))
  ideal = per_device * (mesh.shape["fsdp"] - 1)
  assert once <= 1.1 * ideal
  assert each >= COUNT * ideal  # once forwards, at least


def test_weights_gathered_once_make_the_same_update(both):
  _, _, found = both
  (each, measured), (once, same) = found[False][1], found[True][1]
  assert set(same) == set(measured)
  for name in measured:
    np.testing.assert_allclose(same[name], measured[name], rtol=1e-5, err_msg=name)
  difference = optax.tree.norm(jax.tree.map(np.subtract, once, each))
  assert difference <= 1e-5 * optax.tree.norm(each)
