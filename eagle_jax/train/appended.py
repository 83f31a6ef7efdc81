"""A file that grows by whole pieces, and never ends the run that writes it."""

from __future__ import annotations

import contextlib
import os
import pathlib
import sys


class Appended:
  """Appends pieces, each wholly or not at all.

  On a full disk, or for any other reason that a file cannot be written, it says so once on
  standard error and drops the piece; the next one is tried again.

  Attributes:
    dropped: pieces that could not be written.
  """

  def __init__(self, path: pathlib.Path, *, keep: int | None = 0):
    """Opens the file.

    Args:
      path: of the file, made with its folder where there is none.
      keep: bytes at its beginning that stay, None for all; what follows them is cut off.
    """
    self._path, self._keep, self._end, self._file = path, keep, 0, -1
    self.dropped, self._said = 0, False
    try:
      self._open()
    except OSError as error:
      self._say(error)

  def _open(self) -> None:
    """Opens the file, or raises OSError; what is after its end is cut off."""
    self._path.parent.mkdir(parents=True, exist_ok=True)
    self._file = os.open(self._path, os.O_RDWR | os.O_CREAT, 0o644)
    if self._keep is None:
      self._keep = os.fstat(self._file).st_size
    self._end = self._keep
    os.ftruncate(self._file, self._end)

  def append(self, piece: bytes) -> bool:
    """Returns whether the piece was written."""
    try:
      if self._file < 0:
        self._open()
      written = 0
      while written < len(piece):  # a full disk takes a part first, and then raises
        written += os.pwrite(self._file, piece[written:], self._end + written)
    except OSError as error:
      self.dropped += 1
      self._say(error)
      with contextlib.suppress(OSError):
        if self._file >= 0:
          os.ftruncate(self._file, self._end)
      return False
    self._end += len(piece)
    return True

  def close(self) -> None:
    """Closes the file; says how many pieces it lacks, if any."""
    if self.dropped:
      lacks = "piece" if self.dropped == 1 else "pieces"
      print(f"{self._path} lacks {self.dropped} {lacks}", file=sys.stderr, flush=True)
    if self._file >= 0:
      with contextlib.suppress(OSError):  # a late error of a network file system
        os.close(self._file)
      self._file = -1

  def _say(self, error: OSError) -> None:
    """Says what is wrong, the first time."""
    if not self._said:
      print(
        f"{self._path} cannot be written: {error.strerror or error}; the run goes on without "
        "what belongs there, and tries again each time",
        file=sys.stderr,
        flush=True,
      )
    self._said = True
