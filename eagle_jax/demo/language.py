"""The demonstration's language model: trained on text before it ever sees an image token.

`eagle-jax demo --language-model` makes the tokenizer and the weights that are shipped,
with the project's own training loop; `start` gives the shipped weights as a checkpoint.
"""

from __future__ import annotations

import collections
import json
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import safetensors.numpy
from flax import traverse_util

from eagle_jax import __version__, checkpoint, config
from eagle_jax.data import batch, conversation, tokenize
from eagle_jax.data import records as data_records
from eagle_jax.demo import provenance, text, tokenizer
from eagle_jax.demo.items import SIDE
from eagle_jax.demo.records import Entry
from eagle_jax.model import eagle as eagle_lib
from eagle_jax.train import loop
from eagle_jax.types import Batch

TEMPLATE = "brief"

RECORDS = 150_000
"""Text records, each seen about STEPS · BATCH / RECORDS times."""

STEPS, BATCH = 5000, 64
HELD_OUT = 2_000
"""Records of another seed on which the shipped model is graded."""

LENGTH = 40
"""Positions of a row; only ordinary text is ever longer, and is cut."""

LINES = 6_000
"""Records whose text the tokenizer is trained on."""


def make(*, seed: int, steps: int = STEPS, folder: Path = provenance.ASSETS) -> None:
  """Trains tokenizer and language model and writes them, with their story, into `folder`.

  Args:
    seed: of records, parameters and order.
    steps: updates.
    folder: where the shipped files are.
  """
  model = tokenizer.train(text.lines(LINES, seed))
  tokenizer.check_single(model, text.single_pieces())
  with tempfile.TemporaryDirectory() as temporary:
    workdir = Path(temporary)
    (workdir / provenance.TOKENIZER).write_bytes(model)
    records = list(text.records(RECORDS, seed))
    (workdir / "text.json").write_text(json.dumps(records), encoding="utf-8")
    chosen = experiment(workdir, seed=seed, steps=steps)
    loop.run(chosen, str(workdir / "run"))
    params = _trained(workdir / "run")
    grades = grade(chosen, params, list(text.records(HELD_OUT, seed + 1)))
  weights = {path: leaf.astype(np.float16) for path, leaf in params.items() if _is_ours(path)}
  files = {provenance.TOKENIZER: model, provenance.LANGUAGE_MODEL: safetensors.numpy.save(weights)}
  provenance.ship(files, _story(chosen, weights, grades), folder)


def experiment(workdir: Path, *, seed: int, steps: int) -> config.Experiment:
  """Returns the run that trains on the text in `workdir`.

  The loop trains whole models, so one small expert comes along; without a picture it
  gets no gradient and is thrown away.
  """
  return config.Experiment(
    name="demo-language",
    stage="finetune",
    init_missing=True,
    batch_size=BATCH,
    steps=steps,
    seed=seed,
    log_every=50,
    model=config.Model(
      experts=("pix2struct@demo",),
      projector="linear",
      language="demo",
      image_size=SIDE,
      grid_side=text.SIDE,
      dtype="float32",
      remat="none",
    ),
    data=config.Data(
      records=str(workdir / "text.json"),
      tokenizer=str(workdir / provenance.TOKENIZER),
      template=TEMPLATE,
      max_length=LENGTH,
      max_images=0,
    ),
    optimizer=config.Optimizer(
      peak_lr=3e-3, warmup_fraction=0.05, weight_decay=0.01, clip_norm=1.0
    ),
    mesh=config.Mesh(data=-1, fsdp=1, tensor=1),
    checkpoints=config.Checkpoints(every=steps, keep=1),
  )


def start(folder: Path, *, assets: Path = provenance.ASSETS) -> Path:
  """Writes the shipped weights as a checkpoint that a stage can start from.

  Args:
    folder: must not exist yet.
    assets: where the shipped files are.

  Returns:
    The folder.

  Raises:
    EagleError: if what is shipped is missing or changed, or the folder exists.
  """
  weights = provenance.asset(provenance.LANGUAGE_MODEL, assets)
  params = {name: leaf.astype(np.float32) for name, leaf in _read(weights).items()}
  checkpoint.save_params(str(folder), params, {"kind": "language model of the demonstration"})
  return folder


def grade(
  chosen: config.Experiment, params: Mapping[str, np.ndarray], records: Sequence[Entry]
) -> dict[str, float]:
  """Returns task → share of text records whose whole answer is the likeliest, in [0, 1].

  Args:
    chosen: the run that trained.
    params: '/'-joined path → array, of the whole model.
    records: text records that were not trained on.
  """
  eagle = eagle_lib.build(chosen.model)
  tree = {"params": traverse_util.unflatten_dict(dict(params), sep="/")}

  @jax.jit
  def likeliest(given: Batch) -> jax.Array:
    """Returns the likeliest next token at every position [B, S]."""
    logits: Any = eagle.apply(tree, given)
    return jnp.argmax(logits, -1)

  right: dict[str, list[bool]] = collections.defaultdict(list)
  vocabulary = tokenize.load(chosen.data.tokenizer)
  for first in range(0, len(records) - BATCH + 1, BATCH):
    asked = records[first : first + BATCH]
    given = _batch(asked, vocabulary)
    said = np.asarray(likeliest(given))[:, :-1]  # [B, S-1]
    wrong = (said != given.tokens[:, 1:]) & given.loss_mask[:, 1:]
    for record, row in zip(asked, wrong, strict=True):
      right[record["task"]].append(not row.any())
  return {task: float(np.mean(right[task])) for task in text.DRAWS if task in right}


def _batch(asked: Sequence[Entry], vocabulary: tokenize.Tokenizer) -> Batch:
  """Returns text records as a batch without pictures, rows of LENGTH positions."""
  none = np.zeros((0, SIDE, SIDE, 3), np.uint8)
  form = conversation.template(TEMPLATE)
  rows = []
  for record in asked:
    turns = data_records.parse(record, "text.json", 1).turns
    encoded = tokenize.conversation(vocabulary, form, turns)
    rows.append(batch.row(encoded, none, tokens_per_image=text.SLOTS, max_length=LENGTH))
  return batch.collate(
    rows, lengths=(LENGTH,), max_images=0, image_size=SIDE, pad_id=vocabulary.pad_id
  )


def _is_ours(path: str) -> bool:
  """Whether a parameter is the language model's."""
  return path.startswith("language/")


def _read(path: Path) -> dict[str, np.ndarray]:
  """Returns '/'-joined path → array of a file of weights."""
  return safetensors.numpy.load(path.read_bytes())


def _trained(workdir: Path) -> dict[str, np.ndarray]:
  """Returns the float32 parameters of a finished run."""
  device = jax.sharding.SingleDeviceSharding(jax.devices()[0])
  wanted = {
    path: jax.ShapeDtypeStruct(shape, jnp.float32, sharding=device)
    for path, shape in checkpoint.stored(str(workdir)).items()
  }
  loaded = checkpoint.load_params(str(workdir), wanted)
  return {path: np.asarray(leaf) for path, leaf in loaded.items()}


def _story(
  chosen: config.Experiment, weights: Mapping[str, np.ndarray], grades: Mapping[str, float]
) -> dict[str, str]:
  """Returns what PROVENANCE.md tells of tokenizer and weights."""
  numbers = sum(leaf.size for leaf in weights.values())
  return {
    "What they are": f"A SentencePiece vocabulary of {tokenizer.VOCAB} pieces and the "
    f"{numbers:,} float16 parameters of the language model named `demo`.",
    "Made by": f"`eagle-jax demo --language-model --seed={chosen.seed}`, eagle-jax {__version__}, "
    f"jax {jax.__version__}: {chosen.steps} updates of {chosen.batch_size} rows.",
    "Trained on": f"{RECORDS:,} records drawn by eagle_jax/demo/text.py: questions of the "
    "demonstration about words that stand in place of a picture, and passages of the data set "
    "descriptions inside scikit-learn (BSD-3-Clause). No pretrained weights, no picture, and "
    "nothing fetched from a network went into them.",
    "How well it reads": "Whole answers right on text records of another seed: "
    + ", ".join(f"{task} {share:.1%}" for task, share in grades.items())
    + ".",
    "Licence": "Apache-2.0, as the project.",
  }
