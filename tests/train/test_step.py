"""One step: its loss by definition, what it leaves alone, what it costs, where it runs."""

import dataclasses
import functools
import math

import jax
import numpy as np
import optax
import pytest
from flax import traverse_util

from eagle_jax import config
from eagle_jax.data import batch as batch_lib
from eagle_jax.data import pack
from eagle_jax.model import eagle as eagle_lib
from eagle_jax.sharding.axes import AXES
from eagle_jax.sharding.mesh import make_mesh, place_batch
from eagle_jax.train import accumulate, step
from eagle_jax.train.state import nested
from eagle_jax.types import PLACEHOLDER
from tests.train.conftest import MODEL, Small, rows_of

AGREEMENT = 1e-5
"""Relative difference that summing in another order may make in float32."""


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


def _samples(count=13):
  """Conversations with two pictures, one and none, of different lengths; one cut in a picture."""
  draw = np.random.default_rng(1)
  made = []
  for n in range(count):
    pictures = (2, 0, 1)[n % 3]
    words = draw.integers(3, 97, draw.integers(5, 9)).astype(np.int32)
    tokens = np.concatenate([words[:2], np.full(4 * pictures, PLACEHOLDER, np.int32), words[2:]])
    images = draw.integers(0, 256, (pictures, 64, 64, 3)).astype(np.uint8)
    answer = np.arange(len(tokens)) >= len(tokens) - 3
    answer[0] |= n % 4 == 0  # never counts: nothing of its conversation predicts it
    made.append(batch_lib.Row(images, tokens, answer))
  cut = made[0]
  made[0] = batch_lib.Row(cut.images, cut.tokens[:8], np.arange(8) == 1)
  return made


def _packed(samples, share=1):
  samples = [pack.whole(s, 4) for s in samples]
  rows = pack.plan(
    [len(s.tokens) for s in samples],
    [len(s.images) for s in samples],
    length=28,
    slots=4,
    share=share,
  )
  joined = [pack.join([samples[n] for n in row]) for row in rows]
  return batch_lib.collate(
    joined, lengths=(28,), max_images=4, image_size=64, pad_id=0, share=share
  )


@pytest.fixture(scope="module")
def tiny():
  """A model that compiles fast, and its parameters."""
  sizes = {"experts": ("clip@demo",), "language": "tiny", "image_size": 64, "grid_side": 2}
  eagle = eagle_lib.build(config.Model(**sizes, dtype="float32", remat="none"))
  params = jax.jit(functools.partial(eagle_lib.init_params, eagle))(jax.random.key(0))
  return eagle, traverse_util.flatten_dict(jax.device_get(params), sep="/")


def test_packed_rows_have_the_loss_and_gradients_of_the_samples_each_alone(tiny):
  eagle, params = tiny
  function = jax.jit(jax.value_and_grad(functools.partial(step.mean_loss, eagle)))
  samples = _samples()
  alone = batch_lib.collate(samples, lengths=(20,), max_images=2, image_size=64, pad_id=0)
  packed, shared = _packed(samples), _packed(samples, share=2)
  assert len(packed.tokens) < len(alone.tokens)
  assert packed.segments.max() > 1
  assert packed.targets().sum() == alone.targets().sum()
  loss, gradients = function(params, alone)
  norm = optax.tree.norm(gradients)
  # Eight rows, and the four groups of them that share slots, on four times two devices.
  mesh = make_mesh(config.Mesh(data=2, fsdp=2, tensor=2))
  for batch in (packed, place_batch(shared, mesh)):
    found, theirs = function(params, batch)
    assert abs(float(found) - float(loss)) <= 1e-6
    difference = jax.tree.map(lambda a, b: np.asarray(a) - np.asarray(b), theirs, gradients)
    assert optax.tree.norm(difference) <= 1e-5 * norm


def test_rows_without_pictures_cost_no_vision_work(tiny, flops):
  eagle, params = tiny
  samples = [s for s in _samples(24) if len(s.images) < 2]
  text, seen = ([s for s in samples if len(s.images) == i] for i in (0, 1))
  collate = functools.partial(batch_lib.collate, lengths=(20,), image_size=64, pad_id=0)
  only_text = collate(text, max_images=0)
  language = {path: array for path, array in params.items() if path.startswith("language")}
  learning = jax.grad(functools.partial(step.mean_loss, eagle))
  assert flops(learning, params, only_text) == flops(learning, language, only_text)

  forward = functools.partial(step.mean_loss, eagle, params)
  every = collate(seen, max_images=1)
  half = collate([s for pair in zip(text, seen, strict=True) for s in pair], max_images=1, share=2)
  assert len(half.tokens) == 2 * len(every.tokens)
  speaking, seeing, both = (flops(forward, batch) for batch in (only_text, every, half))
  # As many rows with pictures, as many without: no more than the two apart.
  np.testing.assert_allclose(both, speaking + seeing, rtol=0.01)


def test_micro_batches_keep_rows_beside_the_slots_they_share():
  samples = [s for s in _samples(24) if len(s.images) < 2]
  collate = functools.partial(batch_lib.collate, lengths=(20,), image_size=64, pad_id=0)
  whole = collate(samples[:8], max_images=1, share=2)
  micro = accumulate.micro_batches(whole, 2)
  assert micro.images.shape == (2, 2, *whole.images.shape[1:])
  assert micro.segments is None
  for part in range(2):
    for group in range(2):
      first = 2 * (2 * group + part)
      rows = slice(2 * group, 2 * group + 2)
      np.testing.assert_array_equal(micro.tokens[part, rows], whole.tokens[first : first + 2])
      np.testing.assert_array_equal(micro.images[part, group], whole.images[first // 2])


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


@pytest.fixture(scope="module")
def updated():
  """Returns a function: a mesh's sides, rows → what one update measured, and all it changed."""
  # With so large an eps an update is as smooth as its gradient; with Adam's own it is the sign
  # of what is nothing but rounding, as the gradient of a key's bias.
  smooth = config.Optimizer(peak_lr=1.0, warmup_fraction=0.0, eps=1.0)
  model = dataclasses.replace(MODEL, experts=("clip@demo",), language="tiny")

  @functools.cache
  def update(sides, rows):
    sizes = config.Mesh(**dict(zip(AXES, sides, strict=True)))
    mesh = make_mesh(sizes, jax.devices()[: math.prod(sides)])
    made = Small(mesh=mesh, model=model, optimizer=smooth)
    current = made.fresh()
    before = jax.device_get(current.params())
    after, measured = made.run(current, place_batch(rows_of(rows, ids=97), mesh))
    found = {path: array - before[path] for path, array in jax.device_get(after.params()).items()}
    return [float(measured[name]) for name in ("loss", "grad_norm")], found

  return update


@pytest.mark.slow
@pytest.mark.parametrize(
  ("sides", "rows"),
  [
    ((2, 2, 1, 1), 8),
    ((1, 1, 2, 2), 8),
    ((1, 4, 2, 1), 8),
    ((4, 2, 1, 1), 8),
    ((8, 1, 1, 1), 8),
    ((1, 8, 1, 1), 8),
    ((1, 1, 8, 1), 8),
    ((1, 1, 1, 8), 8),
    ((1, 2, 1, 4), 8),
    ((2, 2, 1, 2), 8),
    ((2, 1, 2, 2), 2),  # fewer rows than devices
    ((1, 1, 4, 2), 1),
  ],
)
def test_every_mesh_makes_the_update_of_one_device(updated, sides, rows):
  (want, wanted), (got, made) = updated((1, 1, 1, 1), rows), updated(sides, rows)
  np.testing.assert_allclose(got, want, rtol=AGREEMENT)
  difference = optax.tree.norm(jax.tree.map(np.subtract, made, wanted))
  assert 0 < optax.tree.norm(wanted) < np.inf
  assert difference <= AGREEMENT * optax.tree.norm(wanted)
