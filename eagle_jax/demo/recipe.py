"""The demonstration's training runs: small experts, short stages, one recipe for all."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path

from eagle_jax import config
from eagle_jax.demo import provenance, text
from eagle_jax.demo.records import DataSet

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


@dataclasses.dataclass(frozen=True, kw_only=True)
class Speaker:
  """A language model with all that its rows are written by.

  Attributes:
    language: its name in the table of language models.
    folder: its checkpoint.
    tokenizer: file or folder of its vocabulary.
    template: how conversations are written for it.
  """

  language: str
  folder: Path
  tokenizer: Path
  template: str


@dataclasses.dataclass(frozen=True, kw_only=True)
class Recipe:
  """A demonstration as data.

  Attributes:
    title: of the report.
    experts: as in a config, in channel order.
    pretrained: expert, of those → the checkpoint it starts from; the others begin at random.
    lengths: run or stage → its length, the name of a run first.
    aligner: speaks in stage 1, where each expert learns alone.
    speaker: speaks in the stages after it.
    mesh: of all runs.
  """

  title: str
  experts: tuple[str, ...]
  pretrained: Mapping[str, Path] = dataclasses.field(default_factory=dict)
  lengths: Mapping[str, Length]
  aligner: Speaker
  speaker: Speaker
  mesh: config.Mesh


SMALL_EXPERTS = tuple(f"{name}@demo" for name in ("clip", "convnext", "sam", "eva02", "pix2struct"))

SMALL_LENGTHS = {
  "prealign": Length(steps=100, batch=64, peak_lr=2e-3),
  "pretrain": Length(steps=100, batch=64, peak_lr=2e-3),
  SIGHTED: Length(steps=650, batch=32, peak_lr=1.5e-3),
  # Without a picture there is little to learn: the loss is flat long before the end.
  BLIND: Length(steps=120, batch=32, peak_lr=1.5e-3),
}
"""What two cores do in a quarter of an hour."""


def shipped_speaker(folders: Folders) -> Speaker:
  """Returns the language model that the project ships."""
  return Speaker(
    language="demo",
    folder=folders.language,
    tokenizer=provenance.asset(provenance.TOKENIZER),
    template="brief",
  )


def small(folders: Folders) -> Recipe:
  """Returns the recipe in which nothing but the small language model was trained before."""
  speaker = shipped_speaker(folders)
  return Recipe(
    title="EAGLE in JAX: the demonstration",
    experts=SMALL_EXPERTS,
    lengths=SMALL_LENGTHS,
    aligner=speaker,
    speaker=speaker,
    mesh=config.Mesh(data=2, fsdp=2, tensor=2),
  )


def runs(
  recipe: Recipe, folders: Folders, found: DataSet, *, seed: int
) -> tuple[config.Experiment, ...]:
  """Returns all training runs in order: each expert, the projector, all, and all but blind."""
  writer = _Writer(recipe, folders, found, seed)
  return (
    *(writer.prealign(expert) for expert in recipe.experts),
    writer.pretrain(),
    writer.finetune(),
    writer.finetune(blind=True),
  )


def _name(expert: str) -> str:
  """Returns 'clip' of an expert written as 'clip@demo'."""
  return expert.partition("@")[0]


@dataclasses.dataclass(frozen=True)
class _Writer:
  """Writes the experiments of one recipe."""

  recipe: Recipe
  folders: Folders
  found: DataSet
  seed: int

  def prealign(self, expert: str) -> config.Experiment:
    """Returns the run that aligns one expert: it and its projector learn."""
    weights = self.recipe.pretrained.get(expert)
    own = () if weights is None else (f"vision/.*={weights}",)
    return self._experiment(
      "prealign",
      f"prealign-{_name(expert)}",
      self.recipe.aligner,
      experts=(expert,),
      start_from=(*own, str(self.recipe.aligner.folder)),
      # Such an expert has no checkpoint to start from.
      init_missing=weights is None,
    )

  def pretrain(self) -> config.Experiment:
    """Returns the run of the joint projector over the experts that were aligned."""
    names = [_name(expert) for expert in self.recipe.experts]
    aligned = (f"vision/{name}/.*={self.folders.run(f'prealign-{name}')}" for name in names)
    return self._experiment(
      "pretrain",
      "pretrain",
      self.recipe.speaker,
      start_from=(*aligned, str(self.recipe.speaker.folder)),
    )

  def finetune(self, *, blind: bool = False) -> config.Experiment:
    """Returns the run that trains everything; blind, it sees the mean colour only."""
    return self._experiment(
      "finetune",
      BLIND if blind else SIGHTED,
      self.recipe.speaker,
      start_from=(str(self.folders.run("pretrain")),),
      blind=blind,
    )

  def _experiment(
    self,
    stage: str,
    name: str,
    speaker: Speaker,
    *,
    start_from: tuple[str, ...],
    experts: tuple[str, ...] = (),
    init_missing: bool = False,
    blind: bool = False,
  ) -> config.Experiment:
    """Fills in what all runs share."""
    length = self.recipe.lengths.get(name) or self.recipe.lengths[stage]
    return config.Experiment(
      name=name,
      stage=stage,
      start_from=start_from,
      init_missing=init_missing,
      batch_size=length.batch,
      steps=length.steps,
      seed=self.seed,
      log_every=10,
      model=config.Model(
        experts=experts or self.recipe.experts,
        language=speaker.language,
        image_size=IMAGE_SIZE,
        grid_side=text.SIDE,
        dtype="float32",
        frozen_dtype="float32",
        remat="none",
      ),
      data=config.Data(
        records=str(self.found.parts["train"]),
        images=str(self.found.images),
        tokenizer=str(speaker.tokenizer),
        template=speaker.template,
        max_length=MAX_LENGTH,
        blank_images=blind,
      ),
      optimizer=config.Optimizer(peak_lr=length.peak_lr, warmup_fraction=0.05, clip_norm=1.0),
      mesh=self.recipe.mesh,
      checkpoints=config.Checkpoints(every=length.steps, keep=1),
    )
