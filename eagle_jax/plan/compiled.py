"""Compiles the step of a stage and measures the program; a process of its own when for TPU.

    python -m eagle_jax.plan.compiled REQUEST RESULT

Both are JSON files. For a TPU the compiler, libtpu, loads into the process: it must meet
no other use of JAX there.
"""

from __future__ import annotations

import dataclasses
import json
import pathlib
import resource
import sys
from collections.abc import Mapping, Sequence
from typing import Any

from eagle_jax import config
from eagle_jax.errors import EagleError
from eagle_jax.plan import (
  abstract,
  analytic,
  collectives,
  hlo,
  ideal,
  overlap,
  products,
  programs,
  purpose,
  slices,
)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Facts:
  """What a program says of itself.

  Attributes:
    mesh: axis → devices.
    seconds: that tracing and compiling took.
    held: part → bytes a device holds of it: parameters, optimizer, batch.
    passing: part → bytes that come on top of it by the trace: gradients, activations.
    memory: what the compiler reserves: arguments, outputs, aliased, temporaries, peak.
    refused: what the compiler says where the program does not fit; nothing else is known then.
    model_flops: of a step, all devices, as the model is written.
    device_flops: of a step, each device, as compiled.
    sent: every exchange of data.
    ideal: mesh axis → bytes a device must send in a step.
    digest: identifies the program.
    cpu_seconds: of the process that compiled it or read it again.
    host_memory: bytes of that process at its peak.
  """

  mesh: Mapping[str, int]
  seconds: float
  held: Mapping[str, int]
  passing: Mapping[str, int]
  memory: Mapping[str, int]
  refused: str
  model_flops: int
  device_flops: int
  sent: tuple[collectives.Collective, ...]
  ideal: Mapping[str, int]
  digest: str = ""
  cpu_seconds: float = 0.0
  host_memory: int = 0

  @property
  def analytic(self) -> int:
    """Bytes of HBM that a device should need."""
    return sum(self.held.values()) + sum(self.passing.values())

  @classmethod
  def from_json(cls, text: str) -> Facts:
    """Reads what `to_json` wrote."""
    values = json.loads(text)
    sent = (dict(one, axes=tuple(one["axes"])) for one in values.pop("sent"))
    return cls(sent=tuple(collectives.Collective(**one) for one in sent), **values)

  def to_json(self) -> str:
    """All fields as JSON."""
    return json.dumps(dataclasses.asdict(self))


def measure(
  experiment: config.Experiment, devices: Sequence[Any], *, program: str = "", kept: str = ""
) -> Facts:
  """Compiles the step of an experiment's stage for some devices.

  Args:
    experiment: names the stage and all that decides its step.
    devices: real, emulated or of a slice that is not there.
    program: file that the compiled program's text is written to, if any.
    kept: file where the compiled program lies or is to lie, if any; see `programs`.

  Raises:
    EagleError: if the rows cannot be dealt out to the devices.
  """
  stage = abstract.stage(experiment, devices)
  held = abstract.held(stage)
  passing = analytic.memory(stage, held)
  made = programs.compiled(stage, kept)
  if program:
    pathlib.Path(program).write_text(made.text)
  mesh = dict(stage.mesh.shape)
  read = hlo.parse(made.text) if made.text else None
  used = resource.getrusage(resource.RUSAGE_SELF)
  return Facts(
    mesh=mesh,
    seconds=made.seconds,
    held=held,
    passing=passing,
    memory=made.memory,
    refused=made.refused,
    model_flops=abstract.model_flops(stage),
    device_flops=products.of_program(read) if read else 0,
    sent=_sent(read, mesh, stage) if read else (),
    ideal=ideal.sent(
      experiment, stage.shapes, stage.chosen, mesh=mesh, language=stage.eagle.size.language
    ),
    digest=made.digest,
    cpu_seconds=used.ru_utime + used.ru_stime,
    host_memory=used.ru_maxrss * 1024,
  )


def _sent(
  program: hlo.Program, mesh: Mapping[str, int], stage: abstract.Stage
) -> tuple[collectives.Collective, ...]:
  """Every exchange, with whether products hide it and whether a parameter is what it carries."""
  beside = overlap.hidden(program)
  known = purpose.parameter_shapes(stage.shapes.values(), mesh["tensor"])
  return tuple(
    dataclasses.replace(
      one,
      asynchronous=one.asynchronous and one.channel in beside,
      parameter=purpose.of_parameter(one, known),
    )
    for one in collectives.find(program, mesh)
  )


def topology(wanted: slices.Slice) -> Sequence[Any]:
  """Returns the devices of a slice, for which can be compiled but on which nothing runs."""
  from jax.experimental import topologies

  several = {"num_slices": wanted.count} if wanted.count > 1 else {}
  described = topologies.get_topology_desc(wanted.topology, "tpu", **wanted.chip.options, **several)
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
    devices = topology(slices.parse(asked["slice"], asked["count"]))
    experiment = config.from_mapping(asked["experiment"])
    facts = measure(experiment, devices, program=asked["program"], kept=asked["kept"])
  except EagleError as error:
    pathlib.Path(result).write_text(str(error))
    return error.exit_code
  pathlib.Path(result).write_text(facts.to_json())
  return 0


if __name__ == "__main__":
  sys.exit(main(*sys.argv[1:]))
