"""The demonstration's training runs: small experts, short stages, one recipe for all."""

from __future__ import annotations

import dataclasses
from pathlib import Path

from eagle_jax import config
from eagle_jax.demo import provenance, text
from eagle_jax.demo.records import DataSet

EXPERTS = ("clip", "convnext", "sam", "eva02", "pix2struct")
IMAGE_SIZE = 64  # pixels per side
SIGHTED, BLIND = "finetune", "finetune-blind"
"""Names of the runs that are asked in the end."""
MAX_LENGTH = 36  # positions of the longest row, its image tokens included


@dataclasses.dataclass(frozen=True)
class Length:
  """How long a stage is and how fast it learns.

  Attributes:
    steps: updates.
    batch: rows per update.
    peak_lr: highest learning rate.
  """

  steps: int
  batch: int
  peak_lr: float


LENGTHS = {
  "prealign": Length(steps=100, batch=64, peak_lr=2e-3),
  "pretrain": Length(steps=100, batch=64, peak_lr=2e-3),
  SIGHTED: Length(steps=650, batch=32, peak_lr=1.5e-3),
  # Without a picture there is little to learn: the loss is flat long before the end.
  BLIND: Length(steps=120, batch=32, peak_lr=1.5e-3),
}
"""Stage or run → its length; what two cores do in a quarter of an hour."""


@dataclasses.dataclass(frozen=True)
class Folders:
  """Where a demonstration keeps its things, all inside `out`."""

  out: Path

  @property
  def data(self) -> Path:
    """Records and pictures."""
    return self.out / "data"

  @property
  def language(self) -> Path:
    """The shipped language model as a checkpoint."""
    return self.out / "language"

  def run(self, label: str) -> Path:
    """The training run of a label such as 'prealign-clip'."""
    return self.out / label


def prealign(expert: str, folders: Folders, found: DataSet, *, seed: int) -> config.Experiment:
  """Returns the run that aligns one expert: it and its projector learn, from random."""
  return _experiment(
    "prealign",
    f"prealign-{expert}",
    found,
    experts=(expert,),
    seed=seed,
    start_from=(str(folders.language),),
  )


def pretrain(folders: Folders, found: DataSet, *, seed: int) -> config.Experiment:
  """Returns the run of the joint projector over the experts that were aligned."""
  aligned = (f"vision/{e}/.*={folders.run(f'prealign-{e}')}" for e in EXPERTS)
  return _experiment(
    "pretrain",
    "pretrain",
    found,
    experts=EXPERTS,
    seed=seed,
    start_from=(*aligned, str(folders.language)),
  )


def finetune(
  folders: Folders, found: DataSet, *, seed: int, blind: bool = False
) -> config.Experiment:
  """Returns the run that trains everything; blind, it sees the mean colour only."""
  return _experiment(
    "finetune",
    BLIND if blind else SIGHTED,
    found,
    experts=EXPERTS,
    seed=seed,
    start_from=(str(folders.run("pretrain")),),
    blind=blind,
  )


def runs(folders: Folders, found: DataSet, *, seed: int) -> tuple[config.Experiment, ...]:
  """Returns all training runs in order: each expert, the projector, all, and all but blind."""
  return (
    *(prealign(expert, folders, found, seed=seed) for expert in EXPERTS),
    pretrain(folders, found, seed=seed),
    finetune(folders, found, seed=seed),
    finetune(folders, found, seed=seed, blind=True),
  )


def _experiment(
  stage: str,
  name: str,
  found: DataSet,
  *,
  experts: tuple[str, ...],
  start_from: tuple[str, ...],
  seed: int,
  blind: bool = False,
) -> config.Experiment:
  """Fills in what all runs share."""
  length = LENGTHS.get(name) or LENGTHS[stage]
  return config.Experiment(
    name=name,
    stage=stage,
    start_from=start_from,
    # Only the experts have no checkpoint to start from, and only in their first stage.
    init_missing=stage == "prealign",
    batch_size=length.batch,
    steps=length.steps,
    seed=seed,
    log_every=10,
    model=config.Model(
      experts=tuple(f"{expert}@demo" for expert in experts),
      language="demo",
      image_size=IMAGE_SIZE,
      grid_side=text.SIDE,
      dtype="float32",
      frozen_dtype="float32",
      remat="none",
    ),
    data=config.Data(
      records=str(found.parts["train"]),
      images=str(found.images),
      tokenizer=str(provenance.asset(provenance.TOKENIZER)),
      template="brief",
      max_length=MAX_LENGTH,
      blank_images=blind,
    ),
    optimizer=config.Optimizer(peak_lr=length.peak_lr, warmup_fraction=0.05, clip_norm=1.0),
    mesh=config.Mesh(data=2, fsdp=2, tensor=2),
    checkpoints=config.Checkpoints(every=length.steps, keep=1),
  )
