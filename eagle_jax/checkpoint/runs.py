"""The numbered checkpoints of a training run: saved behind its back, restored whole."""

from __future__ import annotations

import contextlib
import functools
import json
import pathlib
import shutil
import threading
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any, Protocol

import jax
from etils import epath
from flax import traverse_util
from orbax.checkpoint import v1 as ocp

from eagle_jax.checkpoint import manifest, steps, together
from eagle_jax.checkpoint.params import CHECKPOINTS
from eagle_jax.errors import EagleError, PassingError

PATIENCE, SLOWEST = 300.0, 10e6
"""Seconds for a save, and bytes per second that each process writes at least. Whoever cannot
write at all says nothing, so the others wait for it until such a disk would be done."""


class Resumable(Protocol):
  """A position in a stream of batches."""

  def get_state(self) -> Any:
    """Returns the position as JSON-able data."""

  def set_state(self, state: Any) -> None:
    """Goes to a position that `get_state` returned."""


class Stream(Resumable, Protocol):
  """A stream that also goes on where other processes, more or fewer, have stopped."""

  def adopt(self, states: Sequence[Any]) -> None:
    """Goes on from the positions of all processes of that run, in their order."""


def _position_file(index: int | None = None, count: int | None = None) -> str:
  """Returns the name of the file that holds a process's position in its data, by default mine."""
  mine = (jax.process_index(), jax.process_count())
  index, count = mine if index is None or count is None else (index, count)
  return f"process_{index}-of-{count}.json"


def _positions(folder: pathlib.Path) -> list[Any]:
  """Returns the positions of all processes that saved, in their order.

  Raises:
    EagleError: if the position of one is missing.
  """
  have = sorted(path.name for path in folder.glob("process_*.json"))
  count = max(1, len(have))
  wanted = [_position_file(n, count) for n in range(count)]
  if missing := [name for name in wanted if name not in have]:
    raise EagleError(f"{folder} has no {missing[0]}, only {', '.join(have) or 'nothing'}")
  return [json.loads((folder / name).read_text()) for name in wanted]


class _DataState:
  """Saves the position of this process's batch stream; Orbax calls save."""

  def __init__(self, stream: Resumable):
    self._stream = stream

  async def save(self, directory: Any) -> Awaitable[None]:
    """Takes the position now, and writes it once the folder exists."""
    state = json.dumps(self._stream.get_state())

    async def write() -> None:
      """Runs in the background."""
      folder = await directory.await_creation()
      epath.Path(folder / _position_file()).write_text(state)

    return write()

  async def load(self, directory: Any) -> Awaitable[None]:
    """Orbax wants it to be there, and would hide an error of the stream: `restore` reads itself."""
    raise NotImplementedError


class Checkpoints:
  """The numbered checkpoints of one run.

  What is saved gets its number last, after a manifest of every file; older ones go only
  then. A checkpoint is held against its manifest before it is read.
  """

  def __init__(self, workdir: str, *, keep: int, verify: bool = True):
    """Opens `workdir`/checkpoints, removing what an interrupted save left behind.

    Args:
      workdir: of the run; its file system must be shared by all processes, and rename
        a folder at once.
      keep: how many checkpoints stay when a new one is there.
      verify: whether every byte is held against the manifest before a restore, or names
        and sizes of the files only.
    """
    self._folder = pathlib.Path(workdir).resolve() / CHECKPOINTS
    self._keep, self._verify = keep, verify
    self._thread: threading.Thread | None = None
    self._failure = ""
    if together.is_primary():
      self._folder.mkdir(parents=True, exist_ok=True)
      for name in steps.clean(self._folder):
        print(f"checkpoints: removed {name}, which an interrupted save left", flush=True)

  def newest_good(self) -> int | None:
    """Returns the newest step whose files are as they were written, None where there is none.

    Damaged ones that are newer are set aside under another name. Every process must call
    it: each reads a share of the files.

    Raises:
      EagleError: if there are checkpoints, and all of them are damaged; they stay as they are.
    """
    primary = together.is_primary()
    mine = steps.numbered(self._folder) if primary else []
    found = json.loads(together.gather(json.dumps(mine))[0])
    damaged: dict[int, str] = {}
    good = None
    for step in reversed(found):
      if not (told := self._damage(step)):
        good = step
        break
      damaged[step] = told
    if damaged and good is None:
      raise EagleError(
        f"no checkpoint in {self._folder} is as it was written: {'; '.join(damaged.values())}. "
        "Nothing is removed; begin again in a new folder, or move these away"
      )
    for step, told in damaged.items():
      if primary:
        aside = steps.set_aside(self._folder, step)
        print(f"checkpoint {step} is set aside as {aside.name}, going back: {told}", flush=True)
    together.gather("")  # nobody looks for the newest before the damaged ones are away
    return good

  def _damage(self, step: int) -> str:
    """Returns what any process finds wrong with a checkpoint, '' if nothing is."""
    folder, told = self._folder / str(step), ""
    share = (jax.process_index(), jax.process_count())
    try:
      known = manifest.check(folder, contents=self._verify, share=share)
      if not (folder / "params").is_dir():
        told = f"{folder} is damaged: params is missing"
      elif not known and together.is_primary():
        print(f"checkpoint {step} has no {manifest.FILE}: it is read unchecked", flush=True)
    except (EagleError, OSError) as error:
      told = str(error)
    return "; ".join(filter(None, together.gather(told)))

  def save(
    self,
    step: int,
    *,
    params: Mapping[str, jax.Array],
    optimizer: Any,
    data: Resumable,
    meta: Mapping[str, Any],
    last: bool = False,
  ) -> None:
    """Starts saving and returns once the arrays are copied; the writing goes on behind.

    A save that fails says so, and leaves what was there before.

    Args:
      step: updates done so far.
      params: '/'-joined path → array.
      optimizer: every other array that resuming needs, a pytree.
      data: the batch stream; its position is taken now.
      meta: JSON-able description of the run.
      last: whether no other save follows; it is waited for.

    Raises:
      PassingError: if the last save fails.
    """
    self.wait()
    parts = {
      "params": traverse_util.unflatten_dict(dict(params), sep="/"),
      "optimizer": optimizer,
      "data": _DataState(data),
    }
    size = sum(leaf.nbytes for leaf in jax.tree.leaves((dict(params), optimizer)))
    written = self._begin(step, parts, meta, seconds=patience(size))
    self._thread = threading.Thread(
      target=self._commit, args=(step, written, size), kwargs={"quiet": last}, name="commit"
    )
    self._thread.start()
    if last and (told := self.wait()):
      raise PassingError(f"{told}. No other follows: the same command goes on from there")

  def _begin(
    self, step: int, parts: Mapping[str, Any], meta: Mapping[str, Any], *, seconds: int
  ) -> Callable[[], None]:
    """Copies the arrays and starts writing them; returns what waits for the end of that."""
    # A folder that cannot be made is an error here; behind, Orbax would wait for it.
    behind = ocp.options.AsyncOptions(create_directories_asynchronously=False, timeout_secs=seconds)
    try:
      with ocp.Context(async_options=behind):
        return ocp.save_checkpointables_async(
          self._folder / f"{step}{steps.SAVING}", dict(parts), custom_metadata=dict(meta)
        ).result
    except (OSError, jax.errors.JaxRuntimeError) as error:  # the latter where others had the former
      return functools.partial(_raise, error)

  def _commit(self, step: int, written: Callable[[], None], size: int, *, quiet: bool) -> None:
    """Waits until all is written, gives it its number and removes what is too old."""
    try:
      written()  # by every process
      if together.is_primary():
        steps.commit(self._folder, step)
    except Exception as error:  # of Orbax, TensorStore or the disk: none may end the training
      self._failure = (
        f"checkpoint {step} is not saved: {type(error).__name__}: {error}. "
        f"It takes up to {size:,} bytes, {self._room()}; the checkpoints before it are untouched"
      )
      if not quiet:
        print(f"{self._failure}, and the next is tried in its turn", flush=True)
      return
    try:
      if together.is_primary():
        steps.keep_newest(self._folder, self._keep)
    except OSError as error:
      print(f"checkpoints: an old one is not removed: {error}", flush=True)

  def _room(self) -> str:
    """Returns how many bytes can be written."""
    try:
      return f"{shutil.disk_usage(self._folder).free:,} are free in {self._folder}"
    except OSError as error:
      return f"and {self._folder} cannot be reached: {error.strerror}"

  def wait(self) -> str:
    """Waits for the save under way; returns what is to be said of it if it failed, else ''.

    Every process must call it.
    """
    if self._thread is None:
      return ""
    self._thread.join()
    self._thread = None
    told = next(filter(None, together.gather(self._failure)), "")
    self._failure = ""
    if told and together.is_primary():
      with contextlib.suppress(OSError):  # the disk that failed; the next start cleans up, too
        steps.clean(self._folder)
    return told

  def restore(
    self, step: int, *, params: Mapping[str, Any], optimizer: Any, data: Stream
  ) -> tuple[dict[str, jax.Array], Any]:
    """Returns (params, optimizer) of `step` and moves `data` to its position.

    Args:
      step: a step that `newest_good` named.
      params: '/'-joined path → ShapeDtypeStruct with its sharding.
      optimizer: a pytree of ShapeDtypeStructs with shardings.
      data: the batch stream to move.

    Raises:
      EagleError: if `data` cannot go on from there, as after other processes.
    """
    positions = self._folder / str(step) / "data"
    if (mine := positions / _position_file()).exists():
      data.set_state(json.loads(mine.read_text()))
    else:
      data.adopt(_positions(positions))
    nested = traverse_util.unflatten_dict(dict(params), sep="/")
    abstract = {"params": nested, "optimizer": optimizer}
    loaded = ocp.load_checkpointables(self._folder / str(step), abstract)
    return traverse_util.flatten_dict(loaded["params"], sep="/"), loaded["optimizer"]

  def close(self) -> None:
    """Waits for this process's part of a save under way, whatever became of the others."""
    if self._thread is not None:
      self._thread.join()


def patience(size: int) -> int:
  """Returns the seconds in which all processes together must have written `size` bytes."""
  return int(PATIENCE + size / jax.process_count() / SLOWEST)


def _raise(error: Exception) -> None:
  """Raises an error that came up earlier."""
  raise error
