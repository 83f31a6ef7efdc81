"""What a step has to send when nothing is sent needlessly.

Source: the rules of thumb for data, fully sharded and tensor parallelism, as in the
scaling book of jax-ml, training.md.
"""

from __future__ import annotations

import typing
from collections.abc import Mapping

from eagle_jax import config
from eagle_jax.data import pack
from eagle_jax.language.sizes import LlamaSize
from eagle_jax.sharding import rules

if typing.TYPE_CHECKING:
  from eagle_jax.train.stages import Treatment

  Shapes = Mapping[str, tuple[int, ...]]

WIDTHS = {"float32": 4, "bfloat16": 2, "float16": 2}


def sent(
  experiment: config.Experiment,
  shapes: Shapes,
  chosen: Mapping[str, Treatment],
  *,
  mesh: Mapping[str, int],
  language: LlamaSize,
) -> dict[str, int]:
  """Returns mesh axis → bytes that each device must send in a step.

  Along `fsdp` a parameter is gathered for the forward pass and, where gradients pass
  through its part, for the backward pass; a trained one's gradient is scattered. Along
  `data` gradients are summed. Along `tensor` each block of the language model sums its
  two outputs, and their gradients; vision experts need not be split along it at all.
  All in the type of the computation, each once a step whatever is accumulated.

  Args:
    experiment: names types, batch, lengths and what is held whole.
    shapes: '/'-joined path → shape of every parameter.
    chosen: path → treatment.
    mesh: axis → devices.
    language: sizes of the language model.
  """
  width = WIDTHS[experiment.model.dtype]
  f, d, t = (mesh[axis] for axis in ("fsdp", "data", "tensor"))
  moving = {_part(path) for path, treatment in chosen.items() if treatment.trained}
  gathered = scattered = summed = 0.0
  for path, spec in rules.specs(shapes, mesh, experiment.mesh.whole).items():
    held = rules.share(shapes[path], spec, mesh) * width
    back = _part(path) in moving or not path.startswith("vision/")
    trained = chosen[path].trained
    if "fsdp" in spec:
      gathered += (1 + back) * held * (f - 1)
      scattered += trained * held * (f - 1)
    elif trained:
      scattered += 2 * held * (f - 1) / f
    summed += trained * 2 * held * (d - 1) / d
  rows = experiment.batch_size / (f * d)
  activations = rows * pack.row_shape(experiment.data)[0] * language.width * width
  sums = 4 * language.depth * activations * 2 * (t - 1) / t
  return {"fsdp": round(gathered + scattered), "data": round(summed), "tensor": round(sums)}


def _part(path: str) -> str:
  """Returns the part of the model that a parameter belongs to: each expert is one."""
  return "/".join(path.split("/")[: 2 if path.startswith("vision/") else 1])
