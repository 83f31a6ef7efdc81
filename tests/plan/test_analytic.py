"""Memory by the trace."""

import functools

import jax
import pytest

from eagle_jax.plan import abstract, analytic
from tests.plan import cases


@functools.cache
def memory(*overrides, devices=8, stage="finetune"):
  experiment = cases.experiment(stage, *overrides)
  made = abstract.stage(experiment, jax.devices()[:devices])
  held = abstract.held(made)
  return held, analytic.memory(made, held), made


def test_blocks_that_are_recomputed_keep_their_inputs():
  _, found, made = memory()
  language = made.eagle.size.language
  inputs = 32 * language.width * language.depth * 4  # one row a device, float32
  scores = 31 * language.vocab * 4
  assert inputs + scores < found["saved activations"] < 6 * (inputs + scores)
  attention = language.num_heads * 32 * 32 * 4
  assert found["work of a block"] > attention


def test_keeping_everything_costs_more_and_fewer_rows_less():
  _, block, _ = memory()
  _, none, _ = memory("--config.model.remat=none")
  assert none["saved activations"] > 2 * block["saved activations"]
  assert none["work of a block"] == block["work of a block"]
  held, half, _ = memory("--config.batch_size=16", "--config.optimizer.accumulate=2")
  assert half["saved activations"] == pytest.approx(block["saved activations"], rel=0.01)
  assert half["gradients"] == 2 * held["trained parameters"]


def test_what_is_frozen_keeps_nothing():
  held, found, _ = memory(stage="pretrain")
  assert held["trained parameters"] == found["gradients"]
  assert found["saved activations"] < memory()[1]["saved activations"]
