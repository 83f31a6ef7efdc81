"""A model of two small experts, and batches for it."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from eagle_jax import config
from eagle_jax.data.image import blank
from eagle_jax.model import eagle as eagle_lib
from eagle_jax.sharding.mesh import make_mesh, place_batch
from eagle_jax.train import optimizer, origins, stages, state, step
from eagle_jax.types import PLACEHOLDER, Batch

MODEL = config.Model(
  experts=("clip@demo", "sam@demo"),
  language="demo",
  image_size=64,
  grid_side=2,
  dtype="float32",
  frozen_dtype="float32",
  remat="none",
)


class Small:
  """One stage of the small model on a mesh, ready to step."""

  def __init__(self, stage="finetune", *, mesh=None, whole=(), **changes):
    self.mesh = mesh or make_mesh(config.Mesh(), jax.devices()[:1])
    values = {"model": MODEL, "init_missing": True, "mesh": config.Mesh(whole=whole), **changes}
    self.experiment = config.Experiment(name="small", stage=stage, **values)
    self.eagle = eagle_lib.build(self.experiment.model)
    self.chosen = stages.treatments(self.experiment, state.paths(self.eagle))
    self.abstract = state.abstract_params(self.eagle, self.experiment, self.chosen, mesh=self.mesh)
    trained = {path: t for path, t in self.chosen.items() if t.trained}
    self.tx = optimizer.make(self.experiment.optimizer, 10, trained)
    self.step = step.make(self.eagle, self.tx, self.experiment.optimizer, params=self.abstract)

  def fresh(self):
    params, _ = origins.parameters(self.experiment, self.eagle, self.abstract)
    return state.create(params, self.chosen, self.tx, seed=0, mesh=self.mesh)

  def batch(self, rows=8):
    return place_batch(rows_of(rows), self.mesh)

  def run(self, current, batch):
    return step.compile_step(self.step, current, batch)(current, batch)


def rows_of(count, seed=0, ids=500):
  """Rows of one picture and some words, of different lengths; `ids` are those of the words."""
  draw = np.random.default_rng(seed)
  tokens = draw.integers(3, ids, (count, 20)).astype(np.int32)
  tokens[:, 2:6] = PLACEHOLDER
  length = draw.integers(10, 20, (count, 1))
  valid = np.arange(20)[None] < length
  loss_mask = valid & (np.arange(20)[None] > 7)
  images = draw.integers(0, 255, (count, 1, 64, 64, 3)).astype(np.uint8)
  images[0, 0] = blank(64)
  positions = np.where(valid, np.arange(20)[None], 0).astype(np.int32)
  return Batch(
    images=images,
    tokens=np.where(valid, tokens, 0),
    valid=valid,
    loss_mask=loss_mask,
    positions=positions,
  )


@pytest.fixture
def small():
  return Small


@pytest.fixture
def flops():
  """Returns a function: floating point operations of the compiled call."""

  def count(function, *arguments):
    return jax.jit(function).lower(*arguments).compile().cost_analysis()["flops"]

  return count


@pytest.fixture
def as_float():
  return lambda array: np.asarray(jnp.asarray(array, jnp.float32))
