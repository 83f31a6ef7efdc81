"""Reads the text of a compiled program: computations, instructions, loops and what runs how often.

Only what the text itself says is used, so programs of every backend can be read. Source:
the grammar of HLO as XLA prints it, hlo_parser.cc and hlo_instruction.cc.
"""

from __future__ import annotations

import dataclasses
import functools
import math
import re
from collections.abc import Iterator, Mapping

from eagle_jax.errors import EagleError

BITS = {"pred": 8, "token": 0, "opaque": 0}
"""Bits per element of the types whose name does not say it."""
ONE_SHAPE = re.compile(r"\b([a-z]+[0-9]*[a-z0-9]*)\[([0-9,]*)\]")
HEAD = re.compile(r"^\s*(ROOT )?%?([\w.-]+) = ")
COMPUTATION = re.compile(r"^(ENTRY )?%?([\w.-]+) \(.*\{$")
PARENTHESIS = re.compile(r"[()]")
OPERAND = re.compile(r"%([\w.-]+)")

Shape = tuple[str, tuple[int, ...]]
"""Element type and sides, as in ("bf16", (2, 128))."""


@dataclasses.dataclass(frozen=True)
class Instruction:
  """One line of a computation.

  Attributes:
    name: unique in its computation.
    shape: type as printed, a tuple of types in parentheses where there are several.
    opcode: such as "fusion" or "all-gather-start".
    operands: names of the instructions it takes.
    inside: what stands between the parentheses, the value itself for a constant.
    attributes: the rest of the line.
  """

  name: str
  shape: str
  opcode: str
  operands: tuple[str, ...]
  inside: str
  attributes: str

  def attribute(self, name: str) -> str | None:
    """Returns the name or number that an attribute holds, as in `body=%region_1`."""
    found = re.search(rf"\b{name}=%?([\w.-]+)", self.attributes)
    return found[1] if found else None

  def text(self, name: str) -> str | None:
    """Returns the quoted string that an attribute holds, as in `op_name="jit(step)/add"`."""
    found = re.search(rf'\b{name}="([^"]*)"', self.attributes)
    return found[1] if found else None


@dataclasses.dataclass(frozen=True)
class Computation:
  """Instructions by name, in the order of the text, and the last one's name."""

  name: str
  instructions: Mapping[str, Instruction]
  root: str

  def behind(self, name: str) -> Instruction:
    """Returns the instruction whose value `name` is, looking through copies and bitcasts."""
    found = self.instructions[name]
    while found.opcode in ("copy", "bitcast", "convert", "copy-start", "copy-done"):
      found = self.instructions[found.operands[0]]
    return found


@dataclasses.dataclass(frozen=True)
class Program:
  """All computations of a module by name, and the one that runs."""

  computations: Mapping[str, Computation]
  entry: str


@dataclasses.dataclass(frozen=True)
class Visit:
  """A computation as the program runs it.

  Attributes:
    computation: what runs.
    times: how often, loops multiplied out.
    caller: the fusion or call that runs it; None in the entry and in bodies of loops.
  """

  computation: Computation
  times: int
  caller: Instruction | None = None


def shapes(text: str) -> tuple[Shape, ...]:
  """Returns every array type in a printed type, a tuple's members in order."""
  return tuple(
    (kind, tuple(int(side) for side in sides.split(",") if side))
    for kind, sides in ONE_SHAPE.findall(re.sub(r"\{[^}]*\}", "", text))
  )


def num_bytes(shape: Shape) -> int:
  """Returns the bytes that an array [..., n] of this type takes, without padding."""
  kind, sides = shape
  bits = BITS[kind] if kind in BITS else int(re.findall(r"\d+", kind)[0])
  return math.prod(sides) * bits // 8


def parse(text: str) -> Program:
  """Reads a module.

  Raises:
    EagleError: if the text holds no entry computation.
  """
  computations: dict[str, Computation] = {}
  entry = name = root = ""
  lines: dict[str, Instruction] = {}
  for line in text.splitlines():
    if opening := COMPUTATION.match(line):
      name, root, lines = opening[2], "", {}
      entry = name if opening[1] else entry
    elif line.startswith("}") and name:
      computations[name] = Computation(name, lines, root)
      name = ""
    elif name and (head := HEAD.match(line)):
      made = _instruction(head[2], line[head.end() :])
      lines[made.name] = made
      root = made.name if head[1] else root
  if not entry:
    raise EagleError(
      f"a compiled program has an ENTRY computation, these {len(text)} characters none"
    )
  return Program(computations, entry)


def _instruction(name: str, rest: str) -> Instruction:
  """Takes apart what follows `name = `: type, opcode, operands, attributes."""
  end = _closing(rest, 0) if rest.startswith("(") else rest.index(" ")
  shape, rest = rest[:end], rest[end:].lstrip()
  start = rest.index("(")
  end = _closing(rest, start)
  inside = rest[start + 1 : end - 1]
  return Instruction(
    name, shape, rest[:start], tuple(OPERAND.findall(inside)), inside, rest[end:].lstrip(", ")
  )


def _closing(text: str, start: int) -> int:
  """Returns the place after the parenthesis that closes the one at `start`."""
  depth = 0
  for found in PARENTHESIS.finditer(text, start):
    depth += 1 if found[0] == "(" else -1
    if depth == 0:
      return found.end()
  return len(text)


def visits(program: Program) -> Iterator[Visit]:
  """Yields every computation that the program runs, once for each place that runs it.

  Of a conditional each branch is taken to run. A loop whose length the text does not
  tell is taken to run once.
  """
  waiting = [Visit(program.computations[program.entry], 1)]
  while waiting:
    visit = waiting.pop()
    yield visit
    for instruction in visit.computation.instructions.values():
      for called, times, inner in _called(program, visit.computation, instruction):
        caller = visit.caller or instruction if inner else None
        waiting.append(Visit(program.computations[called], visit.times * times, caller))


def _called(
  program: Program, computation: Computation, instruction: Instruction
) -> Iterator[tuple[str, int, bool]]:
  """Yields the computations an instruction runs, how often, and whether as its own inside.

  The function that a reduction applies to each element is left out.
  """
  if instruction.opcode == "while":
    times = trip_count(program, computation, instruction) or 1
    yield instruction.attribute("body") or "", times, False
  elif instruction.opcode == "conditional":
    named = re.search(r"branch_computations=\{([^}]*)\}", instruction.attributes)
    branches = OPERAND.findall(named[1]) if named else []
    sides = (instruction.attribute(f"{side}_computation") for side in ("true", "false"))
    for branch in (*branches, *(side for side in sides if side)):
      yield branch, 1, False
  elif instruction.opcode in ("fusion", "async-start", "call"):
    called = instruction.attribute("calls") or instruction.attribute("to_apply")
    if called:
      yield called, 1, instruction.opcode != "call"


def trip_count(program: Program, computation: Computation, loop: Instruction) -> int | None:
  """Returns how often a loop runs, or None where the text does not tell.

  Either XLA has written it down, or the loop counts from a constant up to a constant.
  """
  noted = re.search(r'known_trip_count":\s*\{"n":\s*"?(\d+)', loop.attributes)
  if noted:
    return int(noted[1])
  condition = program.computations[loop.attribute("condition") or ""]
  compare = condition.behind(condition.root)
  if compare.opcode == "fusion":  # the comparison alone, wrapped
    operands = compare.operands
    inner = program.computations[compare.attribute("calls") or ""]
    compare = inner.behind(inner.root)
  else:
    operands = compare.operands
  direction = compare.attribute("direction")
  if compare.opcode != "compare" or len(operands) != 2 or direction not in ("LT", "LE", "NE"):
    return None
  start = functools.partial(_start, computation, loop)
  first, limit = (_constant(condition.behind(name), start) for name in operands)
  counter = condition.behind(operands[0])
  if first is None or limit is None or counter.opcode != "get-tuple-element":
    return None
  step = _step(program, loop, int(counter.attribute("index") or 0))
  return max(0, -(-(limit + (direction == "LE") - first) // step))


def _constant(found: Instruction, start: functools.partial[Instruction | None]) -> int | None:
  """Returns the number an instruction stands for: a constant, or what the loop is given."""
  if found.opcode == "get-tuple-element":
    given = start(int(found.attribute("index") or 0))
    return _constant(given, start) if given and given.opcode == "constant" else None
  if found.opcode == "constant" and re.fullmatch(r"-?\d+", found.inside):
    return int(found.inside)
  return None


def _start(computation: Computation, loop: Instruction, index: int) -> Instruction | None:
  """Returns what a loop is given for one member of the tuple it carries."""
  given = computation.behind(loop.operands[0])
  return computation.behind(given.operands[index]) if given.opcode == "tuple" else None


def _step(program: Program, loop: Instruction, index: int) -> int:
  """Returns by how much a loop raises its counter: 1 unless the body adds another constant."""
  body = program.computations[loop.attribute("body") or ""]
  made = body.instructions[body.root]
  if made.opcode != "tuple":
    return 1
  added = body.behind(made.operands[index])
  for name in added.operands if added.opcode in ("add", "fusion") else ():
    found = body.behind(name)
    if found.opcode == "constant" and re.fullmatch(r"\d+", found.inside):
      return max(1, int(found.inside))
  return 1
