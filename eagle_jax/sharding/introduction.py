"""What a process says of itself before a run begins, and where two of them differ."""

from __future__ import annotations

import dataclasses
import json
import os
import platform
import socket
import time
from collections.abc import Iterable, Mapping
from importlib import metadata

PACKAGES = (
  *("eagle-jax", "jax", "jaxlib", "libtpu", "flax", "optax"),
  *("orbax-checkpoint", "grain", "numpy"),
)
"""Another version of one of these can make another program, and others that wait for it."""
CLOCK_NOTE, CLOCK_LIMIT = 5.0, 60.0
"""Seconds that two clocks may differ: without a word, and at all."""


@dataclasses.dataclass(frozen=True)
class Introduction:
  """One process.

  Attributes:
    index: its number, from 0.
    count: how many it believes there are.
    host: name of its machine.
    pid: its number there.
    versions: of Python and packages.
    fields: of its config and command line, as text.
    ahead: seconds by which its clock is ahead of that of process 0.
  """

  index: int
  count: int
  host: str
  pid: int
  versions: Mapping[str, str]
  fields: Mapping[str, str]
  ahead: float = 0.0

  def __str__(self) -> str:
    """Number and machine."""
    return f"process {self.index} ({self.host}, pid {self.pid})"

  def line(self) -> bytes:
    """Returns it as one line of JSON, with what its clock says now."""
    said = {**dataclasses.asdict(self), "clock": time.time()}
    return json.dumps(said).encode() + b"\n"


def introduce(index: int, count: int, fields: Mapping[str, str]) -> Introduction:
  """Returns what this process says of itself."""
  return Introduction(index, count, socket.gethostname(), os.getpid(), versions(), dict(fields))


def versions() -> dict[str, str]:
  """Returns the versions of Python and of `PACKAGES`, without importing one."""
  found = {"python": platform.python_version()}
  for name in PACKAGES:
    try:
      found[name] = metadata.version(name)
    except metadata.PackageNotFoundError:
      found[name] = "none"
  return found


def parse(line: bytes) -> Introduction:
  """Returns what another process says at this moment.

  Raises:
    ValueError: if the line is no introduction.
  """
  try:
    said = json.loads(line)
    return Introduction(
      int(said["index"]),
      int(said["count"]),
      str(said["host"]),
      int(said["pid"]),
      dict(said["versions"].items()),
      dict(said["fields"].items()),
      float(said["clock"]) - time.time(),
    )
  except (KeyError, TypeError, AttributeError) as error:
    raise ValueError(f"no introduction: {error}") from None


def differences(first: Introduction, other: Introduction) -> list[str]:
  """Returns each thing in which `other` may not differ from process 0, and does."""
  pairs = [("--processes", str(first.count), str(other.count))]
  for ours, theirs in ((first.versions, other.versions), (first.fields, other.fields)):
    names = sorted({*ours, *theirs})
    pairs += [(name, ours.get(name, "none"), theirs.get(name, "none")) for name in names]
  found = [
    f"{other} has {name} {theirs}, {first} has {ours}"
    for name, ours, theirs in pairs
    if ours != theirs
  ]
  if not 0 <= other.index < first.count:
    found.append(f"{other} is none of 0 to {first.count - 1}")
  if abs(other.ahead) >= CLOCK_LIMIT:
    found.append(f"{skew(other)}, {CLOCK_LIMIT:.0f} s are the limit")
  return found


def skew(other: Introduction) -> str:
  """Returns by how much a clock is ahead, or behind."""
  way = "ahead of" if other.ahead > 0 else "behind"
  return f"the clock of {other} is {abs(other.ahead):.0f} s {way} that of process 0"


def named(numbers: Iterable[int]) -> str:
  """Returns `process 3`, or `processes 0, 3, 7-12`."""
  numbers = list(numbers)
  return f"process{'es' * (len(numbers) != 1)} {ranges(numbers)}"


def ranges(numbers: Iterable[int]) -> str:
  """Returns numbers with runs of three and more drawn together, as in `0, 3, 7-12`."""
  runs: list[list[int]] = []
  for number in sorted(numbers):
    if runs and number == runs[-1][-1] + 1:
      runs[-1].append(number)
    else:
      runs.append([number])
  pieces = [[f"{run[0]}-{run[-1]}"] if len(run) > 2 else list(map(str, run)) for run in runs]
  return ", ".join(text for piece in pieces for text in piece)
