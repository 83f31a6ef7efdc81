"""SIGTERM and Ctrl-C: noticed at once, answered where nothing is lost.

As long as no update was done that a checkpoint lacks, a thread ends the process at once,
whatever the main thread is in: XLA compiles for minutes without letting a signal handler
run. After that the loop looks, finishes the update in hand, and saves.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from types import FrameType

from eagle_jax.errors import PreemptedError

SIGNALS = (signal.SIGTERM, signal.SIGINT)
_SIG_IGN = 1  # as C has it


class Stop:
  """Whether this run is to stop; `install` lets signals ask for it.

  Attributes:
    asked: whether it is.
  """

  def __init__(self) -> None:
    """Hears no signal yet."""
    self.asked = False
    self._lock = threading.Lock()
    self._idle, self._waiting, self._installed = True, False, False
    self._interrupts, self._told = 0, False
    self._forward: Callable[[int], None] | None = None

  def install(self) -> None:
    """Hears signals from now on; from the main thread. SIGINT stays ignored where it was."""
    if not self._installed:
      self._installed = True
      reading, writing = os.pipe()
      os.set_blocking(writing, False)
      signal.set_wakeup_fd(writing, warn_on_full_buffer=False)
      threading.Thread(target=self._listen, args=(reading,), name="signals", daemon=True).start()
    for number in SIGNALS:
      if signal.getsignal(number) != signal.SIG_IGN:
        signal.signal(number, self._handle)

  def join(self) -> None:
    """Hears signals together with the other processes of the run, once they are joined.

    JAX puts a C function in the handler's place, by which the processes agree on the step
    to stop at, and knows no other way to be told. So this takes the place back and calls it.
    """
    import jax

    if not self._installed or jax.process_count() == 1:
      return
    library = ctypes.CDLL(None)
    library.signal.argtypes = (ctypes.c_int, ctypes.c_void_p)
    library.signal.restype = ctypes.c_void_p
    found = library.signal(signal.SIGTERM, _SIG_IGN)
    self.install()
    own = library.signal(signal.SIGTERM, _SIG_IGN)
    self.install()
    if found not in (None, _SIG_IGN, own):
      self._forward = ctypes.CFUNCTYPE(None, ctypes.c_int)(found)

  def _handle(self, number: int, frame: FrameType | None) -> None:
    """Runs in the main thread, between two of Python's instructions."""
    self.asked = True
    self._interrupts += number == signal.SIGINT
    if self._interrupts > 1:
      raise KeyboardInterrupt
    if self._waiting:
      self._waiting = False  # once: a second signal must not interrupt the save
      raise PreemptedError("asked to stop while waiting for data")

  def _listen(self, reading: int) -> None:
    """Runs in a thread of its own, also while the main thread is in C."""
    while heard := os.read(reading, 1):
      if heard[0] not in SIGNALS:
        continue
      with self._lock:
        self.asked = True
        if self._idle:
          self.leave("nothing was done since the last checkpoint")
      if self._forward is not None:
        self._forward(signal.SIGTERM)
      if not self._told:
        self._told = True
        os.write(2, b"eagle-jax: asked to stop; the update in hand is finished and saved first\n")

  def working(self) -> None:
    """Says that an update follows which no checkpoint holds: leaving at once would lose it."""
    with self._lock:
      self._idle = False

  @contextlib.contextmanager
  def waiting(self) -> Iterator[None]:
    """Lets a signal interrupt a block, of a single process, by a PreemptedError.

    Several processes must stop at the same step: there this waits on.
    """
    import jax

    alone = jax.process_count() == 1
    try:
      self._waiting = alone
      if alone and self.asked:
        raise PreemptedError("asked to stop before a batch was taken")
      yield
    finally:
      self._waiting = False

  def reached(self, step: int) -> bool:
    """Whether to stop after `step` updates; all processes must ask at every step."""
    import jax
    from jax.experimental import multihost_utils

    if jax.process_count() == 1:
      return self.asked
    return bool(multihost_utils.reached_preemption_sync_point(step))

  def leave(self, told: str, *, together: bool = False) -> None:
    """Ends the process with the exit code of a preempted run; returns where nothing was installed.

    At once: what hangs, such as a reader of data, must not hold it up.

    Args:
      told: why, or what is saved.
      together: whether the other processes leave now, too, and are waited for.
    """
    if not self._installed:
      return
    if together:
      import jax

      with contextlib.suppress(RuntimeError):  # another one was faster
        jax.distributed.shutdown()
    with contextlib.suppress(OSError, ValueError):
      sys.stdout.flush()
    os.write(2, f"eagle-jax: preempted: {told}\n".encode())  # print may wait for the main thread
    os._exit(PreemptedError.exit_code)
