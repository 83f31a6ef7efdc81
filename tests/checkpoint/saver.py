"""A run of training that only saves: its state says at which step it was."""

import os
import signal
from unittest import mock

import jax.numpy as jnp
import numpy as np

from eagle_jax import checkpoint
from eagle_jax.checkpoint import steps


class Stream:
  """A batch stream that is a counter."""

  def __init__(self, position=0):
    self.position = position

  def get_state(self):
    return {"position": self.position}

  def set_state(self, state):
    self.position = state["position"]

  def adopt(self, states):
    raise AssertionError(f"as many processes go on as saved {states}")


def state(step):
  """Returns params and optimizer of a step, all of whose numbers are drawn from it."""
  drawn = np.random.default_rng(step).standard_normal((64, 128), np.float32)  # [rows, columns]
  return {
    "params": {"a/kernel": jnp.asarray(drawn)},
    "optimizer": {"mu": {"a/kernel": jnp.asarray(drawn[::-1])}, "step": jnp.int32(step)},
  }


def save(checkpoints, step, *, last=False):
  checkpoints.save(step, data=Stream(step), meta={"step": step}, last=last, **state(step))


def run(folder, numbers, ready=None):
  """Saves one step after the other; says so after the first."""
  checkpoints = checkpoint.Checkpoints(folder, keep=2)
  for step in numbers:
    save(checkpoints, step)
    if ready is not None and step > numbers[0]:  # so the first one is there
      ready.set()
  assert checkpoints.wait() == ""


def die_at(folder, step, name):
  """Saves a step and dies at once where its commit comes to a function of `steps`."""
  owner, _, function = name.rpartition(".")
  place = getattr(steps, owner) if owner else steps
  commit = steps.commit

  def die(*_args, **_options):
    os.kill(os.getpid(), signal.SIGKILL)

  def deadly_commit(*args):
    mock.patch.object(place, function, die).start()  # only now: others use these functions, too
    commit(*args)

  with mock.patch.object(steps, "commit", deadly_commit):
    save(checkpoint.Checkpoints(folder, keep=2), step, last=True)
