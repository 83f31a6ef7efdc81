"""Gradients, the schedule, the groups of weight decay and AdamW against the original's."""

import functools
import json
import os
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import traverse_util

from eagle_jax import config
from eagle_jax.convert import engine
from eagle_jax.model import eagle as eagle_lib
from eagle_jax.model import weights as whole_weights
from eagle_jax.sharding.mesh import make_mesh
from eagle_jax.train import optimizer, stages, state, step
from tests.parity import goldens, recipe, whole

LOSSES_AFTER_UPDATES = 1e-5
"""Absolute bound of a loss after several updates. Source: the oracle's acceptance levels."""
NOISE_FACTOR = 10
"""A bound is this many times the float32 noise that the file states."""
PURE_ROUNDING = re.compile(r".*k_proj\.bias")
"""Its gradient is zero up to rounding: a key bias moves every score alike."""
PARTLY_ROUNDING = re.compile(r".*(k_proj|attn\.qkv)\.bias")
"""AdamW turns the rounding of such a gradient into steps of full size."""


def _gradient_cases():
  """Every file of gradients; those that cannot or should not run here say why."""
  for golden in goldens.discover("grads"):
    reason = ""
    try:
      large = goldens.reference(golden).meta["input_image_size"] >= LARGE
      if large and os.environ.get("EAGLE_FULL") != "1":
        reason = "large pictures: set EAGLE_FULL=1"
    except FileNotFoundError as error:
      reason = str(error)
    marks = [pytest.mark.skip(reason=reason)] if reason else []
    yield pytest.param(golden, id=str(golden), marks=marks)


LARGE = 512
"""Pixels per side from which a file runs only under EAGLE_FULL=1."""
GRADS = list(_gradient_cases())
ADAMW = goldens.discover("adamw")
LONG = 10
"""Updates from which a file is left to the whole suite."""


def _updates():
  """Every file of updates, the long ones marked."""
  for golden in ADAMW:
    marks = [pytest.mark.slow] if len(golden["loss"]) >= LONG else []
    yield pytest.param(golden, id=str(golden), marks=marks)


@functools.cache
def _plan(golden):
  """The plan of the golden's import, which also leads back."""
  eagle = whole.model(golden)
  table = whole_weights.table(eagle.size)
  return engine.plan(goldens.weights(golden), table, eagle_lib.abstract_params(eagle))


def _named(golden, flat):
  """Parameters by path as arrays by the original's names and layouts."""
  nested = traverse_util.unflatten_dict(dict(flat), sep="/")
  carried = {name: np.zeros(0, np.float32) for name in _plan(golden).carried}
  exported = engine.export(_plan(golden), jax.tree.map(np.asarray, nested), carried)
  return {name: array for name, array in exported if array.size}


def _flat(golden):
  return traverse_util.flatten_dict(whole.params(golden), sep="/")


@functools.cache
def _gradients(golden):
  """Loss and gradients by original name."""
  eagle, batch = whole.model(golden), whole.batch(goldens.reference(golden))
  found = jax.jit(jax.value_and_grad(functools.partial(step.mean_loss, eagle)))(
    _flat(golden), batch
  )
  return float(found[0]), _named(golden, found[1])


@pytest.mark.parametrize("golden", GRADS)
def test_the_loss_of_a_batch(golden):
  goldens.assert_close(golden, "loss", np.float32(_gradients(golden)[0]))


@pytest.mark.parametrize("golden", GRADS)
def test_every_stored_gradient(golden):
  _, grads = _gradients(golden)
  stored = [name for name in golden.names if name.startswith("grad:")]
  if not stored:
    pytest.skip(f"{golden} stores norms only")
  for name in stored:
    if not PURE_ROUNDING.fullmatch(name):
      goldens.assert_close(golden, name, grads[name.removeprefix("grad:")])


@pytest.mark.parametrize("golden", GRADS)
def test_the_norm_of_every_gradient(golden):
  _, grads = _gradients(golden)
  noise = golden.meta["grad_norm_rel_err_vs_f64"]
  limit = NOISE_FACTOR * max(noise.values() if isinstance(noise, dict) else [noise], key=_number)
  wanted = dict(zip(golden.meta["param_names"], golden["param_grad_norms"], strict=True))
  assert set(wanted) == set(grads)
  largest = max(wanted.values())
  for name, norm in wanted.items():
    got = np.linalg.norm(np.float64(grads[name]))
    if PURE_ROUNDING.fullmatch(name):
      assert got < 1e-6 * largest, name
    else:
      assert abs(got - norm) <= limit * norm, f"{name}: {got} and {norm}"


def _number(value):
  """Orders the numbers of a noise table, its remarks last."""
  return value if isinstance(value, float) else -1.0


def _state(golden, settings, total_steps):
  """The training state of a golden's model with everything trained, its step and its batch."""
  eagle = whole.model(golden)
  model = config.Model(experts=("clip",), dtype="float32")
  experiment = config.Experiment(name="golden", stage="finetune", model=model)
  flat = _flat(golden)
  chosen = stages.treatments(experiment, flat)
  tx = optimizer.make(settings, total_steps, chosen)
  mesh = make_mesh(config.Mesh(), jax.devices()[:1])
  copied = {path: jnp.array(array) for path, array in flat.items()}
  made = state.create(copied, chosen, tx, seed=0, mesh=mesh)
  batch = whole.batch(goldens.reference(golden))
  return made, step.compile_step(step.make(eagle, tx), made, batch), batch


def _settings(golden):
  """The optimizer of a golden, and the steps of its schedule."""
  if "steps" not in golden.meta:  # four steps at a constant rate: the start of a long cosine
    settings = config.Optimizer(peak_lr=1e-3, warmup_fraction=0.0, clip_norm=1.0)
    return settings, 10**9, len(golden["loss"])
  meta = golden.meta
  settings = config.Optimizer(
    peak_lr=meta["learning_rate"],
    warmup_fraction=meta["warmup_ratio"],
    weight_decay=meta["weight_decay"],
    b1=meta["betas"][0],
    b2=meta["betas"][1],
    eps=meta["eps"],
    clip_norm=meta["max_grad_norm"],
  )
  return settings, meta["steps"], meta["steps"]


@pytest.mark.parametrize("golden", list(_updates()))
def test_losses_norms_and_parameters_through_updates(golden):
  settings, total, count = _settings(golden)
  current, update, batch = _state(golden, settings, total)
  for number in range(count):
    current, measured = update(current, batch)
    assert abs(float(measured["loss"]) - golden["loss"][number]) <= LOSSES_AFTER_UPDATES
    norm = golden["grad_norm_before_clip"][number]
    noise = abs(golden["grad_norm_before_clip_f64"][number] - norm)
    got = float(measured["grad_norm"])
    assert abs(got - norm) <= max(NOISE_FACTOR * noise, 1e-5 * norm), f"update {number}"
  if "param_norms_after" in golden:
    _check_after(golden, current)
    loss = step.mean_loss(whole.model(golden), current.trained, batch)
    assert abs(float(loss) - golden["loss_after"]) <= LOSSES_AFTER_UPDATES


def _check_after(golden, current):
  """Compares what the updates made of the parameters."""
  after = _named(golden, current.trained)
  for name in golden.names:
    if name.startswith("after:"):
      goldens.assert_close(golden, name, after[name.removeprefix("after:")])
  limit = NOISE_FACTOR * 3.6e-6  # the oracle's worst norm, key biases left out
  carried = set(_plan(golden).carried)
  compared = 0
  for name, norm in zip(golden.meta["param_names"], golden["param_norms_after"], strict=True):
    if name in carried or PARTLY_ROUNDING.fullmatch(name):
      continue
    compared += 1
    assert abs(np.linalg.norm(np.float64(after[name])) - norm) <= limit * norm, name
  assert compared > 0.9 * len(golden.meta["param_names"])


def _oracle_json(name):
  """A JSON file of the goldens; skips where it is not there."""
  for folder in goldens.folders():
    if (folder / name).exists():
      return json.loads((folder / name).read_text())
  pytest.skip(f"{name} is in none of the folders with goldens")


def test_the_schedule_at_every_step():
  for case in _oracle_json("lr_schedule.json")["cases"]:
    settings = config.Optimizer(peak_lr=case["learning_rate"], warmup_fraction=case["warmup_ratio"])
    rate = optimizer.learning_rate(settings, case["total_steps"])
    steps = np.arange(len(case["rates"]))
    got = np.asarray(jax.vmap(rate)(steps.astype(np.float32)))
    np.testing.assert_allclose(got, case["rates"], atol=2e-7 * case["learning_rate"])


def test_weight_decay_spares_what_the_original_spares():
  if not ADAMW:
    pytest.skip("no golden of AdamW")
  groups = _oracle_json("optimizer_groups.json")["cases"]["default"]
  wanted = {name: group["weight_decay"] > 0 for group in groups for name in group["names"]}
  golden = goldens.reference(ADAMW[0])
  experiment = config.Experiment(
    name="golden", stage="finetune", model=config.Model(experts=("clip",))
  )
  chosen = stages.treatments(experiment, _flat(golden))
  decay = {move.name: chosen[move.place.path].decay for move in _plan(golden).moves}
  assert decay == {name: wanted[name] for name in decay}
  # Carried too are the original's derived tables: buffers, which no optimizer has.
  carried = {name for name in _plan(golden).carried if not recipe.DERIVED.fullmatch(name)}
  assert set(wanted) - set(decay) == carried
