"""Which collectives of a compiled program run beside products, by the order of its text.

A program for TPU is printed as it is scheduled. A collective that has begun and is not yet
awaited runs beside whatever stands in between, and beside the products in a fusion it is
part of.
"""

from __future__ import annotations

from eagle_jax.plan import hlo

PRODUCTS = ("dot", "convolution")
KERNEL = "tpu_custom_call"
"""Target of a kernel written by hand."""
STARTS, DONE = "AsyncCollectiveStart", "AsyncCollectiveDone"


def hidden(program: hlo.Program) -> frozenset[str]:
  """Returns the channels of the collectives during which the device multiplies."""
  found: set[str] = set()
  for visit in hlo.visits(program):
    if visit.caller is None:
      found |= _of_schedule(program, visit.computation)
  return frozenset(found)


def _of_schedule(program: hlo.Program, computation: hlo.Computation) -> set[str]:
  """Walks one computation in its order."""
  under_way: dict[str, str] = {}  # name of what began it, or channel of a fusion → channel
  found: set[str] = set()
  for name, instruction in computation.instructions.items():
    inside = program.computations.get(instruction.attribute("calls") or "")
    channel = instruction.attribute("channel_id")
    if instruction.opcode.endswith("-start") and channel:
      under_way[name] = channel
    elif instruction.opcode.endswith("-done"):
      for operand in instruction.operands:
        under_way.pop(operand, None)
    if _multiplies(program, instruction):
      found |= set(under_way.values())
    if inside is None:
      continue
    targets = {one.text("custom_call_target") for one in inside.instructions.values()}
    for one in filter(
      None, (each.attribute("channel_id") for each in inside.instructions.values())
    ):
      if STARTS in targets:
        under_way[one] = one
      elif DONE in targets:
        under_way.pop(one, None)
  return found


def _multiplies(program: hlo.Program, instruction: hlo.Instruction) -> bool:
  """Whether an instruction has a product in it, at any depth."""
  if instruction.opcode in PRODUCTS or instruction.text("custom_call_target") == KERNEL:
    return True
  inside = program.computations.get(
    instruction.attribute("calls") or instruction.attribute("body") or ""
  )
  return inside is not None and any(
    _multiplies(program, one) for one in inside.instructions.values()
  )
