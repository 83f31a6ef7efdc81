"""One step: its loss by definition, what it leaves alone, what it costs, where it runs."""

import functools

import jax
import numpy as np
import pytest

from eagle_jax import config
from eagle_jax.sharding.mesh import make_mesh
from eagle_jax.train import step
from eagle_jax.train.state import nested

AGREEMENT = 1e-5
"""Relative difference that summing in another order may make in float32."""


def test_a_target_counts_only_where_a_real_token_predicts_it():
  valid = np.array([[False, True, True, True], [True, True, False, False]])
  loss_mask = np.array([[False, True, True, False], [True, True, False, True]])
  counted = step.target_mask(loss_mask, valid)
  np.testing.assert_array_equal(counted, [[False, True, False], [True, False, False]])


def test_the_loss_is_the_mean_over_all_counted_targets_of_the_batch(small):
  made = small()
  batch, params = made.batch(), made.fresh().params()
  logits = np.asarray(made.eagle.apply({"params": nested(params)}, batch), np.float64)
  found = []
  for b in range(len(logits)):
    for s in range(1, logits.shape[1]):
      if batch.loss_mask[b, s] and batch.valid[b, s - 1]:
        row = logits[b, s - 1]
        found.append(np.log(np.exp(row).sum()) - row[int(batch.tokens[b, s])])
  loss = step.mean_loss(made.eagle, params, batch)
  np.testing.assert_allclose(float(loss), np.mean(found), rtol=1e-6)


@pytest.mark.parametrize("stage", ["pretrain", "finetune"])
def test_a_step_moves_what_is_trained_and_nothing_else(small, stage):
  made = small(stage, optimizer=config.Optimizer(peak_lr=1e-2, warmup_fraction=0.0))
  before = {path: np.asarray(array) for path, array in made.fresh().params().items()}
  after, measured = made.run(made.fresh(), made.batch())
  assert int(after.step) == 1
  assert float(measured["grad_norm"]) > 0
  for path, array in after.frozen.items():
    np.testing.assert_array_equal(array, before[path], err_msg=path)
  moved = {path for path, array in after.trained.items() if (array != before[path]).any()}
  # The class embedding never takes part; without decay it stays.
  assert set(after.trained) - moved == {p for p in after.trained if "class_embedding" in p}
  assert set(after.trained) == {p for p, t in made.chosen.items() if t.trained}


def test_frozen_parameters_have_no_optimizer_state(small):
  made = small("pretrain")
  current = made.fresh()
  trained = sum(array.size for array in current.trained.values())
  moments = sum(leaf.size for leaf in jax.tree.leaves(current.opt_state) if leaf.ndim)
  assert moments == 2 * trained
  assert trained < 0.2 * sum(array.size for array in current.params().values())


def test_frozen_parts_cost_no_backward_work(small, flops):
  """Compares compiled programs by their floating point operations.

  Beyond the forward pass, pretraining may differentiate through the language model
  (once its forward work: no gradient of its weights) and train the projector (twice).
  """
  made = small("pretrain")
  params, batch = made.fresh().params(), made.batch()

  def part(prefix):
    return {path: array for path, array in params.items() if path.startswith(prefix)}

  def vision(p):
    return made.eagle.apply({"params": nested(p)}, batch.images[:, 0], method="features")

  def images(p):
    return made.eagle.apply({"params": nested(p)}, batch.images, method="encode_images")

  forward = flops(functools.partial(step.mean_loss, made.eagle, batch=batch), params)
  seeing = flops(vision, part("vision"))
  projecting = flops(images, part("vision") | part("projector")) - seeing
  speaking = forward - seeing - projecting
  pretrain = flops(made.step, made.fresh(), batch)
  everything = small("finetune")
  finetune = flops(everything.step, everything.fresh(), batch)

  slack = 1.15  # softmax, norms and the update of the projector
  assert pretrain <= forward + slack * (speaking + 2 * projecting)
  assert finetune >= 2.5 * forward
  assert pretrain < 0.7 * finetune


def test_accumulated_micro_batches_make_the_same_update(small):
  whole = small(batch_size=8)
  parts = small(batch_size=8, optimizer=config.Optimizer(accumulate=4))
  one, loss_one = whole.run(whole.fresh(), whole.batch())
  four, loss_four = parts.run(parts.fresh(), parts.batch())
  np.testing.assert_allclose(float(loss_one["loss"]), float(loss_four["loss"]), rtol=AGREEMENT)
  norms = float(loss_one["grad_norm"]), float(loss_four["grad_norm"])
  np.testing.assert_allclose(*norms, rtol=AGREEMENT)
  assert int(one.step) == int(four.step) == 1


def test_every_mesh_gives_the_losses_of_one_device(small):
  rate = config.Optimizer(peak_lr=1e-3, warmup_fraction=0.0)
  meshes = {
    "one": None,
    "mixed": make_mesh(config.Mesh(data=2, fsdp=2, tensor=2)),
    "fsdp": make_mesh(config.Mesh(fsdp=8)),
  }
  losses = {}
  for name, mesh in meshes.items():
    made = small(mesh=mesh, optimizer=rate)
    current, batch = made.fresh(), made.batch()
    compiled = step.compile_step(made.step, current, batch)
    losses[name] = []
    for _ in range(3):
      current, measured = compiled(current, batch)
      losses[name].append(float(measured["loss"]))
  for name in ("mixed", "fsdp"):
    np.testing.assert_allclose(losses[name], losses["one"], rtol=AGREEMENT, err_msg=name)
  assert losses["one"][2] < losses["one"][0]
