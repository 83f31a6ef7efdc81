"""Reads a stream ahead in a thread, and knows where it stands without what was read ahead."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Iterator
from typing import Any, Generic, NamedTuple, Protocol, TypeVar

Made = TypeVar("Made")


class Stream(Protocol):
  """What is read ahead: batches, and a position that can be taken and gone back to."""

  def __next__(self) -> Any:
    """Returns the next batch."""

  def get_state(self) -> Any:
    """Returns the position as JSON-able data."""

  def set_state(self, state: Any) -> None:
    """Goes to a position that `get_state` returned."""


class _Entry(NamedTuple):
  """What the thread hands over: a batch and the position behind it, or an error."""

  made: Any
  state: Any
  error: BaseException | None = None


class Ahead(Iterator[Made], Generic[Made]):
  """The stream's batches, each made ready before it is asked for.

  An error of the stream is raised when its batch would be due, not before.
  """

  def __init__(self, stream: Stream, ready: Callable[[Any], Made], *, depth: int):
    """Reads nothing yet.

    Args:
      stream: is used by this object alone from now on.
      ready: what is done to a batch, such as sending it to the devices; runs in the thread.
      depth: batches held ready; 0 makes each when it is asked for, without a thread.
    """
    self._stream, self._ready, self._depth = stream, ready, depth
    self._state = stream.get_state()
    self._thread: threading.Thread | None = None

  def __next__(self) -> Made:
    if not self._depth:
      made = self._ready(next(self._stream))
      self._state = self._stream.get_state()
      return made
    if self._thread is None:
      self._start()
    entry = self._made.get()
    if entry.error is not None:
      self.close()
      raise entry.error
    self._free.release()
    self._state = entry.state
    return entry.made

  def get_state(self) -> Any:
    """Returns the position behind the last batch given, whatever was read ahead."""
    return self._state

  def set_state(self, state: Any) -> None:
    """Goes to a position that `get_state` returned; what was read ahead is dropped."""
    self.close()
    self._stream.set_state(state)
    self._state = state

  def close(self) -> None:
    """Ends reading ahead; the next batch starts it again where this stood."""
    if self._thread is None:
      return
    self._stopped.set()
    self._free.release()
    self._thread.join()
    self._thread = None
    self._stream.set_state(self._state)

  def _start(self) -> None:
    """Starts the thread."""
    self._made: queue.SimpleQueue[_Entry] = queue.SimpleQueue()
    self._free = threading.Semaphore(self._depth)
    self._stopped = threading.Event()
    self._thread = threading.Thread(target=self._read, name="batches ahead", daemon=True)
    self._thread.start()

  def _read(self) -> None:
    """Makes batches until there is an error or nobody wants more; runs in the thread."""
    try:
      while True:
        self._free.acquire()
        if self._stopped.is_set():
          return
        made = self._ready(next(self._stream))
        self._made.put(_Entry(made, self._stream.get_state()))
    except BaseException as error:  # handed to whoever asks for the batch
      self._made.put(_Entry(None, None, error))
