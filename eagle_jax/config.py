"""An experiment as frozen, validated dataclasses.

`configs/*.py` return ml_collections ConfigDicts, the command line overrides them,
and `from_mapping` turns the result into an `Experiment` once, at the border.
Everything below takes these dataclasses only.
"""

from __future__ import annotations

import dataclasses
import json
import types
import typing
from collections.abc import Mapping
from typing import Any

from eagle_jax.errors import EagleError
from eagle_jax.registry import nearest

STAGES = ("prealign", "pretrain", "finetune")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Model:
  """What is built; names are looked up in the tables of vision, fusion and language."""

  experts: tuple[str, ...] = ("clip", "convnext", "sam", "eva02", "pix2struct")
  """In channel order; 'name' is the released size, 'name@size' another row of its sizes."""
  fusion: str = "channel_concat"
  projector: str = "mlp2x_gelu"  # linear, identity, mlpNx_gelu
  language: str = "vicuna_7b"
  vocab_rows: int = 0  # of the embedding table; 0: as many as the language model has
  image_size: int = 1024  # pixels per side of the batch's pictures
  grid_side: int = 32  # cells per side of the common grid; its square is N
  dtype: str = "bfloat16"  # of computation; norms, softmax and loss stay float32
  param_dtype: str = "float32"  # of what is trained
  frozen_dtype: str = "bfloat16"  # of what is not
  remat: str = "block"  # none, block, names, offload; or by part: docs/memory.md


@dataclasses.dataclass(frozen=True, kw_only=True)
class Source:
  """One of several sources of records."""

  records: str  # as data.records
  images: str = ""  # as data.images
  weight: float = 0.0  # share of the rows, in proportion; of all sources or of none
  cap: int = 0  # at most so many of its records are used, the same in every epoch; 0: all
  licence: str = ""  # goes into what the run records of itself
  system: str = ""  # in place of the template's system prompt, in plain words


@dataclasses.dataclass(frozen=True, kw_only=True)
class Data:
  """Where the records are and how they become rows."""

  records: str = ""  # JSON list or lines, Parquet, shards of `data build`, TFDS; docs/data.md
  images: str = ""  # the folder image names are relative to; none may leave it
  sources: tuple[Source, ...] = ()  # several, in place of records and images
  tokenizer: str = ""  # a SentencePiece .model or a tokenizer.json
  template: str = "v1"
  aspect: str = "pad"  # pad to a square, or 'square': shortest edge and centre crop
  compat: str = ""  # 'upstream': masks and cuts as EAGLE makes them, its faults included
  max_length: int = 2048  # positions a conversation is cut at, placeholders expanded
  lengths: tuple[int, ...] = ()  # lengths a batch may have, up to max_length; (): that alone
  pack: bool = False  # several conversations in one row
  pack_length: int = 0  # positions of a packed row; 0: max_length
  pack_images: int = 0  # image slots of a packed row, or of those that share; 0: max_images
  share: int = 1  # packed rows that follow each other and share their image slots
  group: str = ""  # 'modality': EAGLE's batches of like length, with pictures or without
  max_images: int = 1  # pictures a record may have, and image slots of a row
  bad_budget: float = 0.001  # share of unusable records above which the run stops
  workers: int = 0  # Grain worker processes; 0 reads in the trainer's own process
  prefetch: int = 1  # batches made and placed on the devices ahead of the step
  device_resize: bool = False  # the devices make pictures square: same bytes, less host work
  blank_images: bool = False  # every picture replaced by the mean colour: the blind baseline


@dataclasses.dataclass(frozen=True, kw_only=True)
class Optimizer:
  """AdamW under a cosine that starts from a linear warm-up and ends at zero.

  Source: EAGLE, scripts/finetune-eagle-x5-vicuna-7b-1.8m.sh; no clipping there.
  """

  peak_lr: float = 2e-5  # per step, reached when warm-up ends
  warmup_fraction: float = 0.03  # of all steps of the stage, rounded up
  weight_decay: float = 0.0  # applied by the decay patterns of train/stages.py
  b1: float = 0.9
  b2: float = 0.999
  eps: float = 1e-8
  clip_norm: float = 0.0  # global L2 norm of the gradient; 0 turns clipping off
  accumulate: int = 1  # micro-batches per step; divides the batch size
  max_skipped: int = 5  # updates skipped in a row that end the run
  gather_once: bool = False  # micro-batches share the gathered weights; takes their memory
  moments_dtype: str = "float32"  # both running means; bfloat16 halves their memory
  spike_factor: float = 0.0  # × the usual gradient norm and the update is skipped; 0: never


@dataclasses.dataclass(frozen=True, kw_only=True)
class Mesh:
  """Devices along each axis; their product is the device count, at most one is -1."""

  data: int = 1
  fsdp: int = -1
  tensor: int = 1
  sequence: int = 1
  whole: tuple[str, ...] = ()  # path patterns of parameters that every device holds whole


@dataclasses.dataclass(frozen=True, kw_only=True)
class Checkpoints:
  """When the state is saved and what is kept."""

  every: int = 500  # steps
  keep: int = 2  # latest checkpoints kept
  verify: bool = True  # every byte of a checkpoint is hashed before the run goes on from it


@dataclasses.dataclass(frozen=True, kw_only=True)
class Experiment:
  """One stage of training, complete."""

  name: str
  stage: str = "finetune"  # prealign, pretrain, finetune
  start_from: tuple[str, ...] = ()
  """'PLACE' or 'PATTERN=PLACE', the first that is for a parameter's path counts. A place is a
  checkpoint, a run's folder, or foreign weights: a .safetensors, .bin, .pth, .gguf or .npz file,
  or a folder of Hugging Face's. What none of them holds is an error unless the stage draws it."""
  init_missing: bool = False  # draw what no checkpoint holds at random: from scratch
  unlock: tuple[str, ...] = ()  # path patterns trained beside what the stage trains
  batch_size: int = 128  # rows per step over all devices
  steps: int = 0  # 0 means `epochs` over the records
  epochs: float = 1.0
  seed: int = 42
  log_every: int = 10  # steps
  watchdog_minutes: float = 30.0  # without progress: stacks, twice: exit code 42; 0: never
  model: Model = dataclasses.field(default_factory=Model)
  data: Data = dataclasses.field(default_factory=Data)
  optimizer: Optimizer = dataclasses.field(default_factory=Optimizer)
  mesh: Mesh = dataclasses.field(default_factory=Mesh)
  checkpoints: Checkpoints = dataclasses.field(default_factory=Checkpoints)

  def to_json(self) -> str:
    """The whole experiment as indented JSON; `from_mapping(json.loads(…))` gives it back."""
    return json.dumps(dataclasses.asdict(self), indent=2)


def from_mapping(values: Mapping[str, Any]) -> Experiment:
  """Builds and validates an experiment from nested mappings.

  Raises:
    EagleError: for an unknown field (with the nearest valid one), a value of the wrong
      type, or a broken rule between fields.
  """
  experiment = _build(Experiment, values, "")
  validate(experiment)
  return experiment


def _build(cls: type, values: Any, place: str) -> Any:
  """Fills dataclass `cls` from a mapping; `place` is the dotted path so far."""
  if not isinstance(values, Mapping):
    raise EagleError(f"config field '{place.rstrip('.')}' must hold fields, it is {values!r}")
  hints = typing.get_type_hints(cls)
  names = [field.name for field in dataclasses.fields(cls)]
  for name in values:
    if name not in names:
      raise EagleError(
        f"config has no field '{place}{name}'{nearest(name, names) or '.'} "
        f"Fields there: {', '.join(names)}."
      )
  try:
    return cls(**{n: _coerce(hints[n], v, f"{place}{n}") for n, v in values.items()})
  except TypeError as error:
    raise EagleError(f"config{' ' + place.rstrip('.') if place else ''}: {error}") from None


def _coerce(kind: Any, value: Any, place: str) -> Any:
  """Returns `value` as the field type `kind`, or raises naming the field."""
  if dataclasses.is_dataclass(kind):
    return _build(typing.cast(type, kind), value, place + ".")
  if isinstance(kind, types.GenericAlias) and typing.get_origin(kind) is tuple:
    inner = typing.get_args(kind)[0]
    if isinstance(value, (list, tuple)):
      return tuple(_coerce(inner, item, place) for item in value)
  elif kind is float and isinstance(value, (int, float)) and not isinstance(value, bool):
    return float(value)
  elif isinstance(value, kind) and isinstance(value, bool) == (kind is bool):
    return value
  raise EagleError(
    f"config field '{place}' must be of type {getattr(kind, '__name__', kind)}, it is {value!r}"
  )


def validate(experiment: Experiment) -> None:
  """Checks the rules between fields that no type can express.

  Raises:
    EagleError: naming every broken rule with its values.
  """
  e, m, o = experiment, experiment.model, experiment.optimizer
  sides = (e.mesh.data, e.mesh.fsdp, e.mesh.tensor, e.mesh.sequence)
  rules = (
    (
      e.stage in STAGES,
      f"stage is {e.stage!r}{nearest(e.stage, STAGES) or '.'} Known: {', '.join(STAGES)}",
    ),
    (
      e.stage != "prealign" or len(m.experts) == 1,
      f"prealign trains one expert with its own projector, model.experts has {len(m.experts)}",
    ),
    (len(set(m.experts)) == len(m.experts), f"model.experts must differ, they are {m.experts}"),
    (len(m.experts) > 0, "model.experts must name at least one expert"),
    (
      e.batch_size > 0 and o.accumulate > 0 and e.batch_size % o.accumulate == 0,
      f"optimizer.accumulate must divide batch_size, they are {o.accumulate} and {e.batch_size}",
    ),
    (e.steps >= 0 and e.epochs > 0, f"steps must be ≥ 0 and epochs > 0: {e.steps}, {e.epochs}"),
    (
      o.max_skipped > 0 and e.watchdog_minutes >= 0,
      "optimizer.max_skipped must be positive, watchdog_minutes not negative: "
      f"{o.max_skipped}, {e.watchdog_minutes}",
    ),
    (0 <= e.data.bad_budget <= 1, f"data.bad_budget must lie in [0, 1]: {e.data.bad_budget}"),
    (
      sides.count(-1) <= 1 and all(s == -1 or s > 0 for s in sides),
      f"mesh axes must be positive, at most one -1: {sides}",
    ),
    (
      e.data.aspect in ("pad", "square"),
      f"data.aspect must be pad or square, it is {e.data.aspect!r}",
    ),
    (
      not e.data.pack or e.steps > 0,
      "data.pack needs steps: how many packed rows an epoch makes is not known beforehand",
    ),
    (m.grid_side >= 2, f"model.grid_side must be at least 2, it is {m.grid_side}"),
    (
      e.checkpoints.every > 0 and e.checkpoints.keep > 0,
      f"checkpoints.every and keep must be positive: {e.checkpoints.every}, {e.checkpoints.keep}",
    ),
  )
  others = (*_optimizer_rules(o), *_data_rules(e.data))
  broken = [message for holds, message in (*rules, *others) if not holds]
  if broken:
    raise EagleError("config: " + "; ".join(broken))


def _optimizer_rules(o: Optimizer) -> tuple[tuple[bool, str], ...]:
  """Returns the rules between the fields of the optimizer: whether each holds, what it says."""
  return (
    (
      0 <= o.warmup_fraction <= 1,
      f"optimizer.warmup_fraction must lie in [0, 1]: {o.warmup_fraction}",
    ),
    (
      o.accumulate > 1 or not o.gather_once,
      f"optimizer.gather_once needs micro-batches, optimizer.accumulate is {o.accumulate}",
    ),
    (
      o.moments_dtype in ("float32", "bfloat16"),
      f"optimizer.moments_dtype must be float32 or bfloat16, it is {o.moments_dtype!r}",
    ),
    (
      o.spike_factor == 0 or o.spike_factor > 1,
      f"optimizer.spike_factor must be 0 or more than 1: {o.spike_factor}",
    ),
  )


def _data_rules(data: Data) -> tuple[tuple[bool, str], ...]:
  """Returns the rules between the fields of the data: whether each holds, and what it says."""
  weights = [source.weight for source in data.sources]
  caps = [source.cap for source in data.sources]
  known = ("", "upstream")
  return (
    (
      not (data.sources and (data.records or data.images)),
      "data.sources stands in place of data.records and data.images: give one or the other",
    ),
    (all(source.records for source in data.sources), "each of data.sources needs records"),
    (
      min([*weights, *caps], default=0) >= 0 and (all(weights) or not any(weights)),
      f"data.sources have positive weights, all of them or none; they are {weights}, caps {caps}",
    ),
    (
      not (any(weights) and any(caps)),
      f"data.sources have weights or caps, not both: {weights}, {caps}",
    ),
    (
      data.compat in known,
      f"data.compat is {data.compat!r}{nearest(data.compat, known) or '.'} Known: '', 'upstream'",
    ),
    (data.group in ("", "modality"), f"data.group must be '' or modality, it is {data.group!r}"),
    (
      not data.lengths
      or (data.lengths == tuple(sorted(set(data.lengths))) and data.lengths[-1] == data.max_length),
      f"data.lengths must rise to data.max_length: {data.lengths}, {data.max_length}",
    ),
    (
      data.max_length > 0 and min(data.lengths, default=1) > 0 and data.max_images >= 0,
      "data.max_length and lengths must be positive, max_images not negative: "
      f"{data.max_length}, {data.lengths}, {data.max_images}",
    ),
    (
      not data.pack or not (data.lengths or data.group),
      "data.pack fills rows of one length in an order of its own: no data.lengths, no data.group",
    ),
    (
      data.pack or not (data.pack_length or data.pack_images),
      f"data.pack_length and pack_images need data.pack: {data.pack_length}, {data.pack_images}",
    ),
    (
      data.pack_length in (0, max(data.pack_length, data.max_length))
      and data.pack_images in (0, max(data.pack_images, data.max_images)),
      f"a packed row must hold a conversation: data.pack_length {data.pack_length} and max_length "
      f"{data.max_length}, data.pack_images {data.pack_images} and max_images {data.max_images}",
    ),
    (
      data.share == 1 or (data.share > 1 and data.pack),
      f"data.share must be 1, or at least 2 with data.pack: {data.share}",
    ),
    (
      not (data.group and any(weights)),
      f"data.group orders the records of an epoch, data.sources with weights have none: {weights}",
    ),
    (
      data.workers >= 0 and data.prefetch >= 0,
      f"data.workers and prefetch must not be negative: {data.workers}, {data.prefetch}",
    ),
  )
