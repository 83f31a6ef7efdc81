"""`eagle-jax describe`: what a config builds, at full size, without computing anything.

eagle-jax describe --config=eagle_x5_vicuna_7b:finetune
eagle-jax describe --config=eagle_x5_vicuna_7b:finetune --sharding --devices=64
"""

from __future__ import annotations

import math
import typing
from collections.abc import Iterator, Mapping, Sequence

from eagle_jax.cli import config as cli_config
from eagle_jax.cli.parser import Parser, positive

if typing.TYPE_CHECKING:
  from eagle_jax.config import Experiment
  from eagle_jax.model.eagle import Eagle
  from eagle_jax.train.stages import Treatment

  Shapes = Mapping[str, tuple[int, ...]]

GIB = 1024**3


def run(arguments: Sequence[str], summary: str) -> int:
  """Runs the verb; returns the exit code."""
  parser = Parser("describe", summary)
  cli_config.add_flag(parser)
  parser.add_argument(
    "--devices", type=positive, default=1, metavar="N", help="devices to divide the memory by"
  )
  parser.add_argument(
    "--sharding", action="store_true", help="print how each tensor lies on the devices instead"
  )
  options, overrides = parser.read(arguments, overrides=True)
  loaded = cli_config.load(options.config, overrides)
  describe = sharding_lines if options.sharding else lines
  print("\n".join(describe(loaded.experiment, options.devices)))
  return 0


def lines(experiment: Experiment, devices: int) -> Iterator[str]:
  """Yields the description, a line or block at a time.

  Args:
    experiment: what to describe.
    devices: number to divide the memory by.
  """
  from eagle_jax.model import eagle as eagle_lib
  from eagle_jax.train import stages

  eagle = eagle_lib.build(experiment.model)
  shapes = parameter_shapes(eagle)
  chosen = stages.treatments(experiment, shapes)
  stage = stages.STAGES[experiment.stage]

  yield f"{experiment.name}: {experiment.stage}, {stage.purpose}\n"
  yield from path_lines(experiment, eagle)
  yield "\n" + stages.table(stages.summary(shapes, chosen)) + "\n"
  yield from memory_lines(experiment, shapes, chosen, devices=devices)


def parameter_shapes(eagle: Eagle) -> Shapes:
  """Returns '/'-joined path → shape of every parameter."""
  from flax import traverse_util

  from eagle_jax.model import eagle as eagle_lib

  leaves = traverse_util.flatten_dict(dict(eagle_lib.abstract_params(eagle)), sep="/")
  return {path: tuple(leaf.shape) for path, leaf in leaves.items()}


def sharding_lines(experiment: Experiment, devices: int) -> Iterator[str]:
  """Yields a line per parameter: shape, logical axes, mesh axes, bytes on each device.

  Args:
    experiment: its mesh lays the devices out.
    devices: how many there are.

  Raises:
    EagleError: if the mesh is not of that many devices.
  """
  import jax.numpy as jnp

  from eagle_jax.model import eagle as eagle_lib
  from eagle_jax.sharding import axes, rules
  from eagle_jax.train import stages

  mesh = axes.sizes(experiment.mesh, devices)
  shapes = parameter_shapes(eagle_lib.build(experiment.model))
  chosen = stages.treatments(experiment, shapes)
  whole = experiment.mesh.whole
  logical, specs = rules.logical_axes(shapes, whole), rules.specs(shapes, mesh, whole)
  kinds = {True: experiment.model.param_dtype, False: experiment.model.frozen_dtype}
  widths = {trained: jnp.dtype(kind).itemsize for trained, kind in kinds.items()}
  sizes = {
    path: rules.share(shape, specs[path], mesh) * widths[chosen[path].trained]
    for path, shape in shapes.items()
  }
  longest = max(map(len, shapes))
  yield " ".join(f"{axis}={side}" for axis, side in mesh.items()) + f", {devices} devices"
  yield f"{'parameter':<{longest}}  {'shape':<22}{'logical axes':<26}{'mesh axes':<22}{'bytes':>14}"
  for path, shape in shapes.items():
    side = "×".join(map(str, shape))
    names, spread = (",".join(a or "-" for a in one[path]) for one in (logical, specs))
    yield f"{path:<{longest}}  {side:<22}{names:<26}{spread:<22}{sizes[path]:>14,}"
  yield f"{'together':<{longest + 72}}{sum(sizes.values()):>14,}"


def path_lines(experiment: Experiment, eagle: Eagle) -> Iterator[str]:
  """Yields the shapes that a picture and its text take on their way, [B, I, H, W, 3] first."""
  size, side = eagle.size, eagle.size.grid_side
  from eagle_jax.data import pack

  length, slots = pack.row_shape(experiment.data)
  rows = experiment.batch_size
  grids = {name: expert_grid(eagle, name) for name, _ in size.experts}
  channels = sum(grid[-1] for grid in grids.values())
  width = size.language.width
  yield f"{'images':<22}{[rows, slots, size.image_size, size.image_size, 3]} uint8"
  for name, expert in size.experts:
    h, w, c = grids[name]
    yield f"  {name:<20}{expert.image_size} px -> [{h}, {w}, {c}] -> [{side}, {side}, {c}]"
  yield f"{'fused':<22}{[rows * slots, side * side, channels]} ({size.fusion})"
  yield f"{'image tokens':<22}{[rows, slots * side * side, width]} ({size.projector})"
  yield f"{'spliced text':<22}{[rows, length, width]} ({experiment.model.language})"
  yield f"{'logits':<22}{[rows, length, size.language.vocab]} float32"


def expert_grid(eagle: Eagle, name: str) -> tuple[int, int, int]:
  """Returns (h, w, C) of the grid [1, h, w, C] that one expert gives for one picture."""
  import jax
  import jax.numpy as jnp

  from eagle_jax.vision import EXPERTS

  size = dict(eagle.size.experts)[name]
  module = EXPERTS[name].module(size=size, dtype=eagle.dtype)
  pixels = jax.ShapeDtypeStruct((1, size.image_size, size.image_size, 3), jnp.float32)
  grid, _ = jax.eval_shape(module.init_with_output, jax.random.key(0), pixels)
  _, h, w, c = grid.shape
  return h, w, c


def memory_lines(
  experiment: Experiment, shapes: Shapes, chosen: Mapping[str, Treatment], *, devices: int
) -> Iterator[str]:
  """Yields what parameters and optimizer take, in GiB; activations come on top.

  Args:
    experiment: names the dtypes.
    shapes: '/'-joined path → shape.
    chosen: path → treatment.
    devices: number to divide by, as if everything were sharded evenly.
  """
  import jax.numpy as jnp

  trained = sum(math.prod(shape) for path, shape in shapes.items() if chosen[path].trained)
  frozen = sum(map(math.prod, shapes.values())) - trained
  wide = jnp.dtype(experiment.model.param_dtype).itemsize
  narrow = jnp.dtype(experiment.model.frozen_dtype).itemsize
  parts = {
    f"trained parameters, {experiment.model.param_dtype}": trained * wide,
    f"frozen parameters, {experiment.model.frozen_dtype}": frozen * narrow,
    "gradients": trained * wide,
    "AdamW's two moments": 2 * trained * jnp.dtype(experiment.optimizer.moments_dtype).itemsize,
  }
  parts["together, without activations"] = sum(parts.values())
  yield f"{'memory':<36}{'GiB':>10}{f'GiB / {devices} devices':>20}"
  for name, size in parts.items():
    yield f"{name:<36}{size / GIB:>10.2f}{size / GIB / devices:>20.3f}"
