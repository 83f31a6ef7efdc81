"""SHA-256 and size of every file of a checkpoint, and whether they still hold.

Neither Orbax nor safetensors notices a flipped bit in the bytes of an array, so the
project writes down what it wrote.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator, Mapping
from pathlib import Path

from eagle_jax.errors import EagleError

FILE = "manifest.json"
MAX_NAMED = 5  # files that a message names

Digest = dict[str, int | str]
"""What is known of a file: `bytes` and `sha256`."""


def digest(path: Path) -> Digest:
  """Returns size and SHA-256 of a file."""
  with path.open("rb") as file:
    return {"bytes": path.stat().st_size, "sha256": hashlib.file_digest(file, "sha256").hexdigest()}


def write(folder: Path, known: Mapping[str, Digest]) -> None:
  """Writes the manifest of everything in a folder, last of all files.

  Args:
    folder: what to describe.
    known: relative name → digest, of files that need not be read again.
  """
  files = {name: known.get(name) or digest(folder / name) for name in sorted(_files(folder))}
  sync(folder / FILE, json.dumps({"version": 1, "files": files}, indent=1).encode())


def check(folder: Path, *, contents: bool) -> int:
  """Holds a folder against its manifest; without one there is nothing to hold it against.

  Args:
    folder: of a checkpoint.
    contents: whether every byte is read and hashed, or names and sizes only.

  Returns:
    The number of files checked, 0 where there is no manifest.

  Raises:
    EagleError: naming the files that are missing, of another size or changed.
  """
  try:
    listed: dict[str, Digest] = json.loads((folder / FILE).read_text())["files"]
  except FileNotFoundError:
    return 0
  except (ValueError, KeyError, TypeError) as error:
    raise EagleError(f"{folder / FILE} is damaged, it is no list of files: {error}") from None
  broken = []
  for name, known in listed.items():
    path = folder / name
    if not path.is_file():
      broken.append(f"{name} is missing")
    elif path.stat().st_size != known["bytes"]:
      broken.append(f"{name} has {path.stat().st_size} bytes, it was written with {known['bytes']}")
    elif contents and digest(path) != known:
      broken.append(f"{name} is changed, its SHA-256 is not the one it was written with")
  if broken:
    more = f"; and {len(broken) - MAX_NAMED} more" if len(broken) > MAX_NAMED else ""
    raise EagleError(f"{folder} is damaged: " + "; ".join(broken[:MAX_NAMED]) + more)
  return len(listed)


def sync(path: Path, data: bytes | memoryview) -> None:
  """Writes a file and waits until the disk has it."""
  with path.open("wb") as file:
    file.write(data)
    file.flush()
    os.fsync(file.fileno())


def _files(folder: Path) -> Iterator[str]:
  """Yields the names of all files below a folder, relative to it, except the manifest."""
  for path in folder.rglob("*"):
    name = path.relative_to(folder).as_posix()
    if path.is_file() and name != FILE:
      yield name
