"""SHA-256 and size of every file of a checkpoint, and whether they still hold.

Neither Orbax nor safetensors notices a flipped bit in the bytes of an array, so the
project writes down what it wrote.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from eagle_jax.errors import EagleError

FILE = "manifest.json"
MAX_NAMED = 5  # files that a message names
THREADS = 8  # files that one process hashes at a time; hashing lets go of Python's lock

Digest = dict[str, int | str]
"""What is known of a file: `bytes` and `sha256`."""


def digest(path: Path, *, durable: bool = False) -> Digest:
  """Returns size and SHA-256 of a file; if `durable`, once the disk has it."""
  with path.open("rb") as file:
    if durable:
      os.fsync(file.fileno())
    return {"bytes": path.stat().st_size, "sha256": hashlib.file_digest(file, "sha256").hexdigest()}


def write(folder: Path, known: Mapping[str, Digest]) -> None:
  """Writes the manifest of everything in a folder, last of all files.

  Args:
    folder: what to describe.
    known: relative name → digest, of files that need not be read again, and that the
      disk has. It is waited for to have the others.
  """
  names = sorted(_files(folder))
  with ThreadPoolExecutor(THREADS) as pool:
    found = pool.map(lambda n: known.get(n) or digest(folder / n, durable=True), names)
    files = dict(zip(names, found, strict=True))
    list(pool.map(sync_path, (path for path in folder.rglob("*") if path.is_dir())))
  sync(folder / FILE, json.dumps({"version": 1, "files": files}, indent=1).encode())
  sync_path(folder)


def check(folder: Path, *, contents: bool, share: tuple[int, int] = (0, 1)) -> int:
  """Holds a folder against its manifest; without one there is nothing to hold it against.

  Args:
    folder: of a checkpoint.
    contents: whether every byte is read and hashed, or names and sizes only.
    share: (n, of) looks at the n-th part of the files only, when `of` processes divide
      them among themselves.

  Returns:
    The number of files in the manifest, 0 where there is none.

  Raises:
    EagleError: naming the files that are missing, of another size or changed.
  """
  try:
    listed = _read(folder / FILE)
  except FileNotFoundError:
    return 0
  except (ValueError, KeyError, TypeError, AttributeError) as error:
    raise EagleError(f"{folder / FILE} is damaged, it is no list of files: {error}") from None
  by_size = sorted(listed, key=lambda name: (listed[name]["bytes"], name), reverse=True)
  with ThreadPoolExecutor(THREADS) as pool:
    looked = pool.map(
      lambda name: _damage(folder, name, listed[name], contents=contents),
      sorted(by_size[share[0] :: share[1]]),
    )
    broken = [told for told in looked if told]
  if broken:
    more = f"; and {len(broken) - MAX_NAMED} more" if len(broken) > MAX_NAMED else ""
    raise EagleError(f"{folder} is damaged: " + "; ".join(broken[:MAX_NAMED]) + more)
  return len(listed)


def _read(path: Path) -> dict[str, Digest]:
  """Returns relative name → digest as a manifest has them."""
  files = json.loads(path.read_text())["files"]
  return {n: {"bytes": int(d["bytes"]), "sha256": str(d["sha256"])} for n, d in files.items()}


def _damage(folder: Path, name: str, known: Digest, *, contents: bool) -> str:
  """Returns what is wrong with a file, '' if nothing is."""
  path = folder / name
  if not path.is_file():
    return f"{name} is missing"
  size = path.stat().st_size
  if size != known["bytes"]:
    return f"{name} has {size} bytes, it was written with {known['bytes']}"
  now = digest(path)["sha256"] if contents else known["sha256"]
  if now != known["sha256"]:
    return f"{name} is changed, its SHA-256 is {now}, it was written with {known['sha256']}"
  return ""


def sync(path: Path, data: bytes | memoryview) -> None:
  """Writes a file and waits until the disk has it."""
  with path.open("wb") as file:
    file.write(data)
    file.flush()
    os.fsync(file.fileno())


def sync_path(path: Path) -> None:
  """Waits until the disk has a file, or knows the names in a folder."""
  handle = os.open(path, os.O_RDONLY)
  try:
    os.fsync(handle)
  finally:
    os.close(handle)


def _files(folder: Path) -> Iterator[str]:
  """Yields the names of all files below a folder, relative to it, except the manifest."""
  for path in folder.rglob("*"):
    name = path.relative_to(folder).as_posix()
    if path.is_file() and name != FILE:
      yield name
