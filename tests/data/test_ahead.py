import threading

import pytest

from eagle_jax.data.ahead import Ahead


class Counting:
  """A stream of whole numbers that can break at one of them."""

  def __init__(self, breaks_at=None):
    self.at, self.breaks_at, self.made = 0, breaks_at, threading.Semaphore(0)

  def __next__(self):
    if self.at == self.breaks_at:
      raise ValueError("broken")
    self.at += 1
    self.made.release()
    return self.at - 1

  def get_state(self):
    return {"at": self.at}

  def set_state(self, state):
    self.at = state["at"]


@pytest.mark.parametrize("depth", [0, 1, 3])
def test_what_is_read_ahead_does_not_move_the_position(depth):
  stream = Counting()
  batches = Ahead(stream, lambda n: -n, depth=depth)
  assert [next(batches) for _ in range(4)] == [0, -1, -2, -3]
  for _ in range(4 + depth):
    assert stream.made.acquire(timeout=60)  # as many as are held ready have been made
  state = batches.get_state()
  assert state == {"at": 4}
  assert next(batches) == -4
  batches.set_state(state)
  assert next(batches) == -4
  batches.close()
  assert stream.at == 5
  assert next(batches) == -5
  batches.close()


def test_no_more_is_read_than_asked_for():
  stream = Counting()
  batches = Ahead(stream, lambda n: n, depth=2)
  next(batches)
  for _ in range(3):
    assert stream.made.acquire(timeout=60)
  assert not stream.made.acquire(timeout=0.05)
  batches.close()


@pytest.mark.parametrize("depth", [0, 2])
def test_an_error_comes_with_its_batch(depth):
  batches = Ahead(Counting(breaks_at=2), lambda n: n, depth=depth)
  assert [next(batches), next(batches)] == [0, 1]
  with pytest.raises(ValueError, match="broken"):
    next(batches)
  assert batches.get_state() == {"at": 2}
