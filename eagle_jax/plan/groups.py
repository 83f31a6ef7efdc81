"""Which axes of the mesh a collective runs along, from the devices it names.

Device i of a program is the i-th of the mesh in row-major order. Source: the three ways
XLA prints groups, hlo_parser.cc and mesh_and_axis.cc.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence

import numpy as np

MESH_FORM = re.compile(
  r"replica_groups=mesh\[(?P<sides>[^\]]*)\](?:, device_ids=\((?P<order>[^)]*(?:\([^)]*\))?)\))?"
  r" \{(?P<axes>[^}]*)\}"
)
IOTA_FORM = re.compile(r"replica_groups=(?P<order>\[[\d,]+\]<=\[[\d,]+\](?:T\([\d,]+\))?)")
LIST_FORM = re.compile(r"replica_groups=\{(?P<groups>(?:\{[\d,]*\},?)*)\}")
PAIRS = re.compile(r"source_target_pairs=\{(?P<pairs>(?:\{\d+,\d+\},?)*)\}")


def members(attributes: str, devices: int) -> np.ndarray:
  """Returns the groups [G, n] that exchange data, as numbers of devices.

  Pairs of a permutation are groups of two, a device paired with itself left out. Where no
  group is named, all devices are one.

  Args:
    attributes: of an instruction.
    devices: devices of the program.
  """
  if found := PAIRS.search(attributes):
    pairs = np.array(_numbers(found["pairs"]), int).reshape(-1, 2)
    return pairs[pairs[:, 0] != pairs[:, 1]]
  if found := MESH_FORM.search(attributes):
    return _of_mesh(found["sides"], found["order"], found["axes"])
  if found := IOTA_FORM.search(attributes):
    groups, _, order = found["order"].partition("<=")
    return _iota(order).reshape(_numbers(groups))
  found = LIST_FORM.search(attributes)
  if found and (rows := [_numbers(row) for row in re.findall(r"\{([\d,]+)\}", found["groups"])]):
    widest = max(map(len, rows))  # groups of unequal size are rare, and not ours
    return np.array([row for row in rows if len(row) == widest])
  return np.arange(devices)[None]


def axes(groups: np.ndarray, mesh: Mapping[str, int]) -> tuple[str, ...]:
  """Returns the axes of the mesh along which the devices of a group [G, n] differ.

  Args:
    groups: from `members`.
    mesh: axis → devices along it, in the order of the mesh.
  """
  places = np.array(np.unravel_index(groups, tuple(mesh.values())))  # [axis, G, n]
  differs = (places != places[..., :1]).any(axis=(1, 2))
  return tuple(name for name, one in zip(mesh, differs, strict=True) if one)


def _of_mesh(sides: str, order: str | None, chosen: str) -> np.ndarray:
  """Groups [G, n] along chosen axes of a mesh of XLA's own, parts of axes included."""
  sizes = {name: int(size) for name, size in re.findall(r"'([^']+)'=(\d+)", sides)}
  cut: list[int] = []  # the mesh with each part of an axis as an axis
  taken: list[int] = []
  parts = {
    name: (int(before or 1), int(size) if size else sizes[name])
    for name, before, size in re.findall(r"'([^']+)'(?::\((\d+)\)(\d+))?", chosen)
  }
  for name, side in sizes.items():
    before, size = parts.get(name, (1, 1))
    if name in parts:
      taken.append(len(cut) + 1)
    cut += [before, size, side // (before * size)]
  count = math.prod(sizes.values())
  devices = (np.arange(count) if order is None else _iota(order)).reshape(cut)
  rest = [axis for axis in range(len(cut)) if axis not in taken]
  return devices.transpose(*rest, *taken).reshape(-1, math.prod(cut[axis] for axis in taken))


def _iota(text: str) -> np.ndarray:
  """Returns the numbers that `[8,2]T(1,0)` stands for: counted, shaped, transposed; flat."""
  found = re.match(r"\[([\d,]+)\](?:T\(([\d,]+)\))?", text)
  if found is None:
    return np.array(_numbers(text))
  sides = _numbers(found[1])
  counted = np.arange(math.prod(sides)).reshape(sides)
  return (counted.transpose(_numbers(found[2])) if found[2] else counted).reshape(-1)


def _numbers(text: str) -> Sequence[int]:
  """Returns all whole numbers in a text."""
  return [int(number) for number in re.findall(r"\d+", text)]
