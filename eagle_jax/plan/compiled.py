"""Compiles the step of a stage and measures the program; a process of its own when for TPU.

    python -m eagle_jax.plan.compiled REQUEST RESULT

Both are JSON files. For a TPU the compiler, libtpu, loads into the process: it must meet
no other use of JAX there.
"""

from __future__ import annotations

import dataclasses
import json
import pathlib
import re
import sys
import time
from collections.abc import Mapping, Sequence
from typing import Any

from eagle_jax import config
from eagle_jax.errors import EagleError
from eagle_jax.plan import abstract, collectives, hlo, ideal, products, slices

FULL = re.compile(r"Used [\d.]+\w? of [\d.]+\w? hbm[^\n]*")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Facts:
  """What a program says of itself.

  Attributes:
    mesh: axis → devices.
    seconds: that tracing and compiling took.
    held: part → bytes a device holds of it: parameters, optimizer, batch.
    memory: what the compiler reserves: arguments, outputs, aliased, temporaries, peak.
    refused: what the compiler says where the program does not fit; nothing else is known then.
    model_flops: of a step, all devices, as the model is written.
    device_flops: of a step, each device, as compiled.
    sent: every exchange of data.
    ideal: mesh axis → bytes a device must send in a step.
  """

  mesh: Mapping[str, int]
  seconds: float
  held: Mapping[str, int]
  memory: Mapping[str, int]
  refused: str
  model_flops: int
  device_flops: int
  sent: tuple[collectives.Collective, ...]
  ideal: Mapping[str, int]

  @classmethod
  def from_json(cls, text: str) -> Facts:
    """Reads what `to_json` wrote."""
    values = json.loads(text)
    sent = (dict(one, axes=tuple(one["axes"])) for one in values.pop("sent"))
    return cls(sent=tuple(collectives.Collective(**one) for one in sent), **values)

  def to_json(self) -> str:
    """All fields as JSON."""
    return json.dumps(dataclasses.asdict(self))


def measure(experiment: config.Experiment, devices: Sequence[Any], *, program: str = "") -> Facts:
  """Compiles the step of an experiment's stage for some devices.

  Args:
    experiment: names the stage and all that decides its step.
    devices: real, emulated or of a slice that is not there.
    program: file that the compiled program's text is written to, if any.

  Raises:
    EagleError: if the rows cannot be dealt out to the devices.
  """
  stage = abstract.stage(experiment, devices)
  begun = time.monotonic()
  text, memory, refused = _compile(stage)
  seconds = time.monotonic() - begun
  if program:
    pathlib.Path(program).write_text(text)
  mesh = dict(stage.mesh.shape)
  read = hlo.parse(text) if text else None
  return Facts(
    mesh=mesh,
    seconds=seconds,
    held=abstract.held(stage),
    memory=memory,
    refused=refused,
    model_flops=abstract.model_flops(stage),
    device_flops=products.of_program(read) if read else 0,
    sent=collectives.find(read, mesh) if read else (),
    ideal=ideal.sent(
      experiment, stage.shapes, stage.chosen, mesh=mesh, language=stage.eagle.size.language
    ),
  )


def _compile(stage: abstract.Stage) -> tuple[str, dict[str, int], str]:
  """Returns the program's text and its memory, or why the compiler refused it."""
  import jax

  from eagle_jax.train import step

  try:
    compiled: Any = step.compile_step(stage.step, stage.state, stage.batch)
  except jax.errors.JaxRuntimeError as error:
    message = str(error)
    if "RESOURCE_EXHAUSTED" not in message and "Ran out of memory" not in message:
      raise
    found = FULL.search(message)
    return "", {}, found[0] if found else message.splitlines()[0]
  stats = compiled.memory_analysis()
  memory = {
    "arguments": stats.argument_size_in_bytes,
    "outputs": stats.output_size_in_bytes,
    "aliased": stats.alias_size_in_bytes,
    "temporaries": stats.temp_size_in_bytes,
    "program": stats.generated_code_size_in_bytes,
  }
  memory["peak"] = getattr(stats, "peak_memory_in_bytes", 0) or (
    memory["arguments"] + memory["outputs"] - memory["aliased"] + memory["temporaries"]
  )
  return compiled.as_text(), memory, ""


def topology(wanted: slices.Slice) -> Sequence[Any]:
  """Returns the devices of a slice, for which can be compiled but on which nothing runs."""
  from jax.experimental import topologies

  described = topologies.get_topology_desc(wanted.topology, "tpu", **wanted.chip.options)
  devices: Sequence[Any] = described.devices
  if len(devices) != wanted.chips:
    raise EagleError(
      f"{wanted.name} has {wanted.chips} chips, libtpu's {wanted.topology} has {len(devices)}"
    )
  return devices


def main(request: str, result: str) -> int:
  """Does what one file asks; writes what it found, or what is wrong; returns the exit code."""
  asked = json.loads(pathlib.Path(request).read_text())
  try:
    devices = topology(slices.parse(asked["slice"]))
    experiment = config.from_mapping(asked["experiment"])
    facts = measure(experiment, devices, program=asked["program"])
  except EagleError as error:
    pathlib.Path(result).write_text(str(error))
    return error.exit_code
  pathlib.Path(result).write_text(facts.to_json())
  return 0


if __name__ == "__main__":
  sys.exit(main(*sys.argv[1:]))
