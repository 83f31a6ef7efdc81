"""What a run saves of itself, and when it may leave."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NoReturn

from eagle_jax import checkpoint
from eagle_jax.errors import PreemptedError
from eagle_jax.train import phases, state


class _Position:
  """A place in the stream that stays where it is, whatever is read on."""

  def __init__(self, state: Any):
    """Keeps what `get_state` gave."""
    self._state = state

  def get_state(self) -> Any:
    """Returns it."""
    return self._state

  def set_state(self, state: Any) -> None:
    """Goes to another place."""
    self._state = state


class Saver:
  """Saves the state of the run, each step once.

  Attributes:
    saved: updates that the newest checkpoint holds.
    phase: of the run.
  """

  def __init__(
    self,
    checkpoints: checkpoint.Checkpoints,
    meta: Mapping[str, Any],
    phase: phases.Phases,
    *,
    done: int,
  ):
    """Takes what is the same for every checkpoint; `done` updates are saved or not worth it."""
    self._checkpoints, self._meta = checkpoints, meta
    self.saved, self.phase = done, phase

  def save(self, current: state.TrainState, done: int, position: Any, *, last: bool) -> None:
    """Starts saving; waits for it if it is the last."""
    with self.phase(phases.SAVE):
      self._checkpoints.save(
        done,
        params=current.params(),
        optimizer=state.beside_params(current),
        data=_Position(position),
        meta=self._meta,
        last=last,
      )
    self.saved = done

  def save_and_leave(self, current: state.TrainState, done: int, position: Any) -> NoReturn:
    """Ends the run here, saved.

    Raises:
      PreemptedError: always, unless it cannot be saved.
    """
    with self.phase(phases.SAVE):
      failed = self._checkpoints.wait()
    if failed or done != self.saved:
      self.save(current, done, position, last=True)
    raise PreemptedError(f"{done} updates are saved; the same command goes on")
