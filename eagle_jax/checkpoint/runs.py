"""The numbered checkpoints of a training run: saved behind its back, restored whole."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Mapping
from typing import Any, Protocol

import jax
from etils import epath
from flax import traverse_util
from orbax.checkpoint import v1 as ocp

from eagle_jax.checkpoint.params import CHECKPOINTS


class Resumable(Protocol):
  """A position in a stream of batches."""

  def get_state(self) -> Any:
    """Returns the position as JSON-able data."""

  def set_state(self, state: Any) -> None:
    """Goes to a position that `get_state` returned."""


class _DataState:
  """Saves the position of this process's batch stream; Orbax calls save and load."""

  def __init__(self, stream: Resumable):
    self._stream = stream

  def _file(self) -> str:
    return f"process_{jax.process_index()}-of-{jax.process_count()}.json"

  async def save(self, directory: Any) -> Awaitable[None]:
    """Takes the position now, and writes it once the folder exists."""
    state = json.dumps(self._stream.get_state())

    async def write() -> None:
      """Runs in the background."""
      folder = await directory.await_creation()
      epath.Path(folder / self._file()).write_text(state)

    return write()

  async def load(self, directory: Any) -> Awaitable[None]:
    """Reads the position back into the stream."""

    async def read() -> None:
      """Runs in the background; Orbax waits for it."""
      self._stream.set_state(json.loads((epath.Path(directory) / self._file()).read_text()))

    return read()


class Checkpoints:
  """The numbered checkpoints of one run."""

  def __init__(self, workdir: str, *, keep: int):
    """Opens `workdir`/checkpoints, removing what an interrupted save left behind."""
    training = ocp.training
    folder = epath.Path(workdir).resolve() / CHECKPOINTS
    folder.mkdir(parents=True, exist_ok=True)
    self._checkpointer = training.Checkpointer(
      folder,
      save_decision_policy=training.save_decision_policies.FixedIntervalPolicy(1),
      preservation_policy=training.preservation_policies.LatestN(keep),
      cleanup_tmp_directories=True,
    )

  def latest(self) -> int | None:
    """Returns the step of the newest complete checkpoint, None where there is none."""
    found = self._checkpointer.latest
    return None if found is None else found.step

  def save(
    self,
    step: int,
    *,
    params: Mapping[str, jax.Array],
    optimizer: Any,
    data: Resumable,
    meta: Mapping[str, Any],
  ) -> None:
    """Starts saving and returns once the arrays are copied; the writing goes on behind.

    Args:
      step: updates done so far.
      params: '/'-joined path → array.
      optimizer: every other array that resuming needs, a pytree.
      data: the batch stream; its position is taken now.
      meta: JSON-able description of the run.
    """
    self._checkpointer.wait()  # an overlapping save would be skipped without a word
    parts = {
      "params": traverse_util.unflatten_dict(dict(params), sep="/"),
      "optimizer": optimizer,
      "data": _DataState(data),
    }
    self._checkpointer.save_checkpointables_async(
      step, parts, custom_metadata=dict(meta), force=True
    )

  def restore(
    self, step: int, *, params: Mapping[str, Any], optimizer: Any, data: Resumable
  ) -> tuple[dict[str, jax.Array], Any]:
    """Returns (params, optimizer) of `step` and moves `data` to its position.

    Args:
      step: a step that `latest` named.
      params: '/'-joined path → ShapeDtypeStruct with its sharding.
      optimizer: a pytree of ShapeDtypeStructs with shardings.
      data: the batch stream to move.
    """
    abstract = {
      "params": traverse_util.unflatten_dict(dict(params), sep="/"),
      "optimizer": optimizer,
      "data": _DataState(data),
    }
    loaded = self._checkpointer.load_checkpointables(step, abstract)
    return traverse_util.flatten_dict(loaded["params"], sep="/"), loaded["optimizer"]

  def close(self) -> None:
    """Waits for the last save and lets go of the folder."""
    self._checkpointer.wait()
    self._checkpointer.close()
