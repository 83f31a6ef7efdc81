"""When a run may leave: with what it did in a checkpoint, written once."""

import contextlib

import numpy as np
import pytest

from eagle_jax import checkpoint
from eagle_jax.errors import PassingError, PreemptedError
from eagle_jax.train import phases, saving


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
