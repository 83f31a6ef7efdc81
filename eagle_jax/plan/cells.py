"""The cells of the table of plans: which stage on which slice, and on which mesh."""

from __future__ import annotations

import dataclasses
import fnmatch
from collections.abc import Sequence

from eagle_jax import config
from eagle_jax.errors import EagleError
from eagle_jax.plan import slices
from eagle_jax.registry import nearest
from eagle_jax.train import stages

LANGUAGES = ("vicuna_7b", "vicuna_13b", "llama3_8b", "yi_34b")
SLICES = ("v4-128", "v5e-256", "v5p-128", "v6e-256")
STAGES = ("pretrain", "finetune")
EXPERTS = ("clip", "convnext", "sam", "eva02", "pix2struct")
ALONE = "v5p-128"
"""The slice of what is planned for one slice only."""
SUMMED = 64
"""Chips along `fsdp` from which on the compiler sums gradients whole, where these are all there
are; along half of a slice it scatters them. Measured: docs/plan.md, "What plans have shown"."""


@dataclasses.dataclass(frozen=True)
class Cell:
  """One stage on one slice.

  Attributes:
    recipe: with its argument, as for `--config`.
    slice: its name.
  """

  recipe: str
  slice: str

  @property
  def name(self) -> str:
    """What patterns are held against, as in eagle_x5_vicuna_7b:finetune@v5e-256."""
    return f"{self.recipe}@{self.slice}"

  @property
  def file(self) -> str:
    """Name of its file, without ending."""
    return self.name.replace(":", "-").replace(",", "-").replace("=", "-").replace("@", ".")


CELLS: tuple[Cell, ...] = (
  *(
    Cell(f"eagle_x5_{language}:{stage}", name)
    for language in LANGUAGES
    for name in SLICES
    for stage in STAGES
  ),
  *(Cell(f"eagle_x5_vicuna_7b:prealign,expert={expert}", ALONE) for expert in EXPERTS),
  *(Cell(f"eagle_x4_{language}:{stage}", ALONE) for language in LANGUAGES[:3] for stage in STAGES),
)
"""In the order of the table."""


def select(pattern: str, cells: Sequence[Cell] = CELLS) -> tuple[Cell, ...]:
  """Returns the cells whose name matches one of several shell patterns, joined by spaces.

  Raises:
    EagleError: if a pattern matches none; names the nearest cell.
  """
  chosen: set[Cell] = set()
  for one in pattern.split():
    found = {cell for cell in cells if fnmatch.fnmatchcase(cell.name, one)}
    if not found:
      names = [cell.name for cell in cells]
      raise EagleError(
        f"no cell matches {one!r}{nearest(one, names) or '.'} Cells are named as {names[0]}"
      )
    chosen |= found
  return tuple(cell for cell in cells if cell in chosen)


def placed(experiment: config.Experiment, wanted: slices.Slice) -> config.Experiment:
  """Returns an experiment with a mesh for a slice: the smallest `tensor` that deals rows out.

  Rows, or groups of rows that share image slots, must be a multiple of data × fsdp; slices lie
  along `data`, and so do the halves of a slice where `summed_whole`. A mesh that the recipe sets
  itself stays.

  Raises:
    EagleError: if no mesh deals the rows out.
  """
  if experiment.mesh != config.Mesh():
    return experiment
  groups = experiment.batch_size // experiment.data.share // experiment.optimizer.accumulate
  tensor = 1
  while groups % (wanted.chips // tensor):
    tensor *= 2
    if wanted.chips % (tensor * wanted.count):
      raise EagleError(
        f"no mesh deals {groups} rows out evenly over {wanted.chips} chips: change batch_size "
        "or the slice"
      )
  mesh = config.Mesh(data=wanted.count, tensor=tensor)
  fsdp = wanted.chips // (wanted.count * tensor)
  if summed_whole(experiment, wanted, fsdp=fsdp):
    mesh = dataclasses.replace(mesh, data=2 * wanted.count)
  return dataclasses.replace(experiment, mesh=mesh)


def summed_whole(experiment: config.Experiment, wanted: slices.Slice, *, fsdp: int) -> bool:
  """Whether the language model is trained along an `fsdp` whose gradients are not scattered."""
  chosen = stages.treatments(experiment, ["language/norm/scale"])
  trained = any(one.trained for one in chosen.values())
  return trained and fsdp == wanted.chips // wanted.count >= SUMMED
