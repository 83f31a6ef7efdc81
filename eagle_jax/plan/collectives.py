"""What a compiled program sends between devices: kind, bytes, axes of the mesh, how often."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Iterable, Mapping

from eagle_jax.plan import groups, hlo

FACTORS = {
  "all-gather": 1,
  "reduce-scatter": 1,
  "all-to-all": 1,
  "ragged-all-to-all": 1,
  "all-reduce": 2,  # a scatter of the sums and a gather of them
}
"""How often the whole array passes each device in a ring, less the share it has itself."""
PERMUTE = "collective-permute"
SCATTERED = "all-reduce-scatter"
"""Name XLA gives on TPU to a fusion of an all-reduce and the slice kept of it."""
SLICES = re.compile(r'_xla_megascale_target="\{([\d,:]+)\}x')
"""Slices that take part in an exchange between them, which is a transfer over their hosts."""
LOOPS = ("while", "body", "closed_call", "checkpoint", "rematted_computation")
NOT_FIRST = ("AsyncCollectiveDone", "AsyncCollectiveUpdate")
"""On TPU a collective that runs beside other work is printed where it starts, in each fusion
it runs beside, and where it is awaited."""


@dataclasses.dataclass(frozen=True)
class Collective:
  """One exchange of data.

  Attributes:
    kind: "all-gather", "reduce-scatter", "all-reduce", "all-to-all" or "collective-permute".
    axes: of the mesh, along which it runs.
    size: devices that take part with each other.
    sent: bytes each device sends each time, in a ring.
    times: how often in a step.
    looped: whether it is within a loop.
    asynchronous: whether the device goes on meanwhile; within a plan, with products.
    shape: of the largest array.
    place: the operation of the model it belongs to.
    channel: the compiler's number of it, "" where it has none.
    parameter: whether it has the shape of a parameter or its gradient.
  """

  kind: str
  axes: tuple[str, ...]
  size: int
  sent: int
  times: int
  looped: bool
  asynchronous: bool
  shape: str
  place: str
  channel: str = ""
  parameter: bool = False

  @property
  def total(self) -> int:
    """Bytes each device sends in a step."""
    return self.sent * self.times


def find(program: hlo.Program, mesh: Mapping[str, int]) -> tuple[Collective, ...]:
  """Returns every collective of a program, each once, in no order.

  Args:
    program: compiled for as many devices as the mesh has.
    mesh: axis → devices along it.
  """
  return tuple(
    found
    for visit in hlo.visits(program)
    if _is_first(visit)
    for instruction in visit.computation.instructions.values()
    if (found := _collective(instruction, visit, mesh)) is not None
  )


def _is_first(visit: hlo.Visit) -> bool:
  """Whether a fusion with a collective in it is the one where that collective starts."""
  if visit.caller is None:
    return True
  if visit.computation.name.startswith("async_collective_fusion"):
    return False
  return not any(
    instruction.text("custom_call_target") in NOT_FIRST
    for instruction in visit.computation.instructions.values()
  )


def _collective(
  instruction: hlo.Instruction, visit: hlo.Visit, mesh: Mapping[str, int]
) -> Collective | None:
  """Returns an instruction as a collective, None if it is none or has nobody to talk to."""
  if instruction.opcode == "send" and (slices := SLICES.search(instruction.attributes)):
    return _across_slices(instruction, visit, slices[1])
  kind = instruction.opcode.removesuffix("-start")
  if kind not in FACTORS and kind != PERMUTE:
    return None
  devices = 1
  for side in mesh.values():
    devices *= side
  members = groups.members(instruction.attributes, devices)
  size = members.shape[-1]
  if size < 2 or not len(members):
    return None
  arrays = _result(instruction, visit.computation)
  whole = sum(map(hlo.num_bytes, arrays))
  if kind == "all-reduce" and visit.computation.name.startswith(SCATTERED):
    kind = "reduce-scatter"
  elif kind == "reduce-scatter":
    whole *= size  # what comes out is a device's share
  starts = any(
    other.text("custom_call_target") == "AsyncCollectiveStart"
    for other in visit.computation.instructions.values()
  )
  largest = max(arrays, key=hlo.num_bytes)
  place = instruction.text("op_name") or (visit.caller and visit.caller.text("op_name")) or ""
  return Collective(
    kind=kind,
    axes=groups.axes(members, mesh),
    size=size,
    sent=whole if kind == PERMUTE else FACTORS[kind] * whole * (size - 1) // size,
    times=visit.times,
    looped=visit.times > 1,
    asynchronous=starts or instruction.opcode.endswith("-start"),
    shape=f"{largest[0]}[{','.join(map(str, largest[1]))}]",
    place=_readable(place),
    channel=instruction.attribute("channel_id") or "",
  )


def _across_slices(instruction: hlo.Instruction, visit: hlo.Visit, slices: str) -> Collective:
  """Returns a transfer to other slices, which lie along `data`, as a collective.

  Args:
    instruction: that sends; another one receives the same.
    visit: where it stands.
    slices: their numbers, as in "1,2" or "1:4".
  """
  ends = [tuple(map(int, part.split(":"))) for part in slices.split(",")]
  size = sum(end[-1] - end[0] + 1 for end in ends)
  kind = re.search(r'_xla_megascale_transfer_type="(\w+)"', instruction.attributes)
  array = hlo.shapes(instruction.shape)[0]
  summed = kind is not None and kind[1] == "ALL_REDUCE"
  sent = hlo.num_bytes(array) * (size - 1)
  return Collective(
    kind=kind[1].lower().replace("_", "-") if kind else PERMUTE,
    axes=("data",),
    size=size,
    sent=2 * sent // size if summed else sent,
    times=visit.times,
    looped=visit.times > 1,
    asynchronous=True,
    shape=f"{array[0]}[{','.join(map(str, array[1]))}]",
    place="between slices",
    channel=instruction.attribute("channel_id") or "",
  )


def _result(instruction: hlo.Instruction, computation: hlo.Computation) -> tuple[hlo.Shape, ...]:
  """Returns the arrays that come out, without those a `-start` hands through."""
  arrays = hlo.shapes(instruction.shape)
  if instruction.opcode == PERMUTE + "-start":
    return arrays[1:2]
  if instruction.opcode == "all-gather-start":
    return arrays[len(instruction.operands) :]
  if instruction.opcode == "all-to-all" and len(arrays) == 1:
    return hlo.shapes(computation.instructions[instruction.operands[0]].shape)
  return arrays


def _readable(place: str) -> str:
  """Shortens an operation's name to the module it stands in and the pass it belongs to.

  Of several operations that were made one, the first speaks for all.
  """
  place = place.removeprefix("(").partition(":")[0]
  backward = "transpose(" in place
  again = "rematted_computation" in place
  kept = re.sub(r"\w+\([^/]*|\([^()]*\)", "", place)
  words = [word for word in kept.split("/") if word and word not in LOOPS and "Eagle." not in word]
  when = ("recomputed" if again else "backward") if backward else "forward"
  return " ".join([when, "/".join(words)])


def per_axis(found: Iterable[Collective]) -> dict[str, dict[str, int]]:
  """Returns axes, joined by '+' → kind → bytes each device sends in a step; largest first."""
  sums: dict[str, dict[str, int]] = {}
  for collective in sorted(found, key=lambda one: -one.total):
    kinds = sums.setdefault("+".join(collective.axes), {})
    kinds[collective.kind] = kinds.get(collective.kind, 0) + collective.total
  return dict(sorted(sums.items(), key=lambda entry: -sum(entry[1].values())))
