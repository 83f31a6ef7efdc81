"""When a run may leave: with what it did in a checkpoint, written once, read on any mesh."""

import contextlib
import dataclasses
import functools
import itertools
import shutil

import jax
import numpy as np
import pytest

from eagle_jax import checkpoint, config
from eagle_jax.errors import PassingError, PreemptedError
from eagle_jax.sharding.mesh import make_mesh, place_batch
from eagle_jax.train import metrics, phases, prepared, saving, state, step
from tests.checkpoint import saver
from tests.launch.runs import Runs
from tests.train.conftest import MODEL, Small, rows_of
from tests.train.small_run import experiment


class Kept:
  """In place of the checkpoints: remembers what it was asked to save."""

  def __init__(self, failed=""):
    self.saved, self.failed = [], failed

  def wait(self):
    told, self.failed = self.failed, ""
    return told

  def save(self, step, *, data, last, **_parts):
    self.saved.append((step, data.get_state(), last))


class State:
  """In place of the state of the training."""

  step = rng = opt_state = np.int32(0)

  def params(self):
    return {}


def leave(kept, *, done):
  phase = phases.Phases()
  saver = saving.Saver(kept, {}, phase, done=2)
  with pytest.raises(PreemptedError, match=f"{done} updates are saved; the same command"):
    saver.save_and_leave(State(), done, {"position": 8})
  assert set(phase.seconds) == {"save"}
  return kept.saved


def test_what_no_checkpoint_holds_is_saved_and_waited_for():
  assert leave(Kept(), done=3) == [(3, {"position": 8}, True)]


def test_what_one_holds_is_not_saved_again():
  assert leave(Kept(), done=2) == []


def test_what_could_not_be_saved_is_tried_again():
  assert leave(Kept(failed="disk full"), done=2) == [(2, {"position": 8}, True)]


def test_a_run_that_cannot_be_saved_is_not_preempted_but_failed(tmp_path):
  with contextlib.closing(checkpoint.Checkpoints(str(tmp_path), keep=1)) as checkpoints:
    folder = tmp_path / "checkpoints"
    folder.rmdir()
    folder.write_text("no folder")
    saver = saving.Saver(checkpoints, {}, phases.Phases(), done=0)
    with pytest.raises(PassingError, match="checkpoint 1 is not saved") as caught:
      saver.save_and_leave(State(), 1, {})
  assert caught.value.exit_code == 1


MESHES = {
  "one device": (1, config.Mesh()),
  "data and fsdp": (4, config.Mesh(data=2, fsdp=2)),
  "fsdp and tensor": (8, config.Mesh(fsdp=4, tensor=2)),
  "fsdp": (8, config.Mesh(fsdp=8)),
  "data and sequence": (8, config.Mesh(data=4, fsdp=1, sequence=2)),
}


def draw(like):
  """A state of positive numbers of these shapes, as moments and counters are, on the host."""
  numbers = np.random.default_rng(0)

  def drawn(leaf):
    found = numbers.gamma(1.0, 0.1, leaf.shape)
    return (found * (100 if leaf.dtype.kind in "iu" else 1)).astype(leaf.dtype)

  return jax.tree.map(drawn, like)


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
  """Returns a function: name of a mesh → the stage made ready, beside a checkpoint from there.

  And the state that lies in it, the same for all: shapes with shardings, and numbers.
  """
  model = dataclasses.replace(MODEL, experts=("clip@demo",), language="tiny")

  @functools.cache
  def save(name):
    devices, sizes = MESHES[name]
    small = Small(mesh=make_mesh(sizes, jax.devices()[:devices]), model=model)
    folder = str(tmp_path_factory.mktemp("run"))
    fields = (small.mesh, small.eagle, small.chosen, small.abstract, small.tx)
    ready = prepared.Run(small.experiment, folder, *fields, total_steps=10)
    blank = state.abstract_state(small.abstract, small.chosen, small.tx, mesh=small.mesh)
    whole = draw(blank)
    placed = jax.tree.map(lambda array, leaf: jax.device_put(array, leaf.sharding), whole, blank)
    with contextlib.closing(checkpoint.Checkpoints(folder, keep=1)) as checkpoints:
      kept = saving.Saver(checkpoints, {}, phases.Phases(), done=0)
      kept.save(placed, 3, {"position": 24}, last=True)
    return ready, blank, whole

  return save


def restored(ready, origin):
  """The state that a stage goes on with from the checkpoint of another."""
  stream = saver.Stream()
  with contextlib.closing(checkpoint.Checkpoints(origin.workdir, keep=1)) as checkpoints:
    current, done, _ = prepared.start(ready, checkpoints, stream)
  assert (done, stream.position) == (3, 24)
  return current


QUICK = ("fsdp and tensor", "data and sequence")
PAIRS = [
  pytest.param(*pair, marks=() if pair == QUICK else pytest.mark.slow)
  for pair in itertools.permutations(MESHES, 2)
]


@pytest.mark.parametrize(("before", "after"), PAIRS)
def test_any_mesh_goes_on_from_any_other_bitwise(saved, before, after):
  origin, _, whole = saved(before)
  ready, blank, _ = saved(after)
  current = restored(ready, origin)
  jax.tree.map(np.testing.assert_array_equal, current, whole)
  for got, want in zip(jax.tree.leaves(current), jax.tree.leaves(blank), strict=True):
    assert got.dtype == want.dtype
    assert got.sharding.is_equivalent_to(want.sharding, got.ndim)


@pytest.mark.slow
def test_the_update_after_a_restore_is_the_same_on_any_mesh(saved):
  """Each goes on from the checkpoint of the one before it."""
  readies = [saved(name)[0] for name in MESHES]
  found = []
  for origin, ready in zip([readies[-1], *readies], readies, strict=False):
    function = step.make(ready.eagle, ready.tx, params=ready.abstract)
    current = restored(ready, origin)
    batch = place_batch(rows_of(8, ids=97), ready.mesh)
    _, measured = step.compile_step(function, current, batch)(current, batch)
    found.append([float(measured[name]) for name in ("loss", "grad_norm")])
  losses, norms = np.transpose(found)
  np.testing.assert_allclose(losses, losses[0], rtol=1e-6)
  np.testing.assert_allclose(norms, norms[0], rtol=1e-5)


@pytest.mark.slow
def test_a_run_goes_on_with_other_processes_as_if_nothing_had_changed(tmp_path, dataset):
  """Two of them, first with rows of their own, then with the same rows, then one again."""
  model = dataclasses.replace(MODEL, experts=("clip@demo",))
  every = config.Checkpoints(every=1, keep=4)
  runs = Runs(tmp_path, experiment(dataset(11), model=model, batch_size=8, checkpoints=every))
  legs = [("8", (1, 8, 1, 1)), ("2x4", (1, 8, 1, 1)), ("2x4", (1, 1, 4, 2)), ("8", (2, 2, 2, 1))]
  losses = []
  for done, (size, sides) in enumerate(legs):
    folder = tmp_path / f"run{done}"
    if done:
      shutil.copytree(tmp_path / f"run{done - 1}", folder)
      for later in range(done + 1, 5):
        shutil.rmtree(folder / "checkpoints" / str(later))
    axes = zip(("data", "fsdp", "tensor", "sequence"), sides, strict=True)
    flags = [f"--config.mesh.{axis}={side}" for axis, side in axes]
    assert runs.run(size, folder.name, *flags) == 0, (tmp_path / f"{folder.name}.err").read_text()
    losses.append([row["loss"] for row in metrics.read(str(folder))])
  assert len(losses[0]) == 4
  np.testing.assert_allclose(losses[1:], np.broadcast_to(losses[0], (3, 4)), rtol=1e-5)
