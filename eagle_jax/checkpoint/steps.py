"""The folders of a run's numbered checkpoints: a number stands for a whole one.

Whatever is being written or removed has another name until, or as soon as, it is not
whole; renaming is what makes the difference, and it happens at once or not at all.
"""

from __future__ import annotations

import itertools
import os
import re
import shutil
from pathlib import Path

from eagle_jax.checkpoint import manifest

SAVING, DELETING, DAMAGED = ".saving", ".deleting", ".bad"
ORBAX = ".orbax-checkpoint-tmp"
"""How Orbax ends the name of what it is writing."""

LEFTOVER = re.compile(rf"\d+({re.escape(SAVING)}|{re.escape(DELETING)}|{re.escape(ORBAX)}).*")


def numbered(folder: Path) -> list[int]:
  """Returns the steps of the checkpoints in a folder, rising."""
  return sorted(int(path.name) for path in folder.iterdir() if path.name.isdigit())


def clean(folder: Path) -> list[str]:
  """Removes what an interrupted save or removal left behind; returns the names of that."""
  left = [path for path in folder.iterdir() if LEFTOVER.fullmatch(path.name)]
  for path in left:
    shutil.rmtree(path, ignore_errors=True)
  return sorted(path.name for path in left)


def commit(folder: Path, step: int) -> None:
  """Makes what was saved under a temporary name a checkpoint: hashes it and gives it its number.

  Raises:
    OSError: if the disk refuses, or has a checkpoint of that number.
  """
  saved = folder / f"{step}{SAVING}"
  manifest.write(saved, {})
  os.rename(saved, folder / str(step))
  manifest.sync_path(folder)


def keep_newest(folder: Path, count: int) -> None:
  """Removes all but the newest checkpoints.

  Raises:
    OSError: if the disk refuses.
  """
  for step in numbered(folder)[:-count]:
    leaving = folder / f"{step}{DELETING}"
    os.rename(folder / str(step), leaving)
    shutil.rmtree(leaving)


def set_aside(folder: Path, step: int) -> Path:
  """Renames a damaged checkpoint, so that its number is free; returns its new place."""
  names = (f"{step}{DAMAGED}{f'-{n}' if n else ''}" for n in itertools.count())
  aside = next(folder / name for name in names if not (folder / name).exists())
  os.rename(folder / str(step), aside)
  return aside
