"""The config.json of a merged EAGLE checkpoint, read into a model and written from one.

Source: EAGLE; the fields its training writes beside those of transformers' Llama.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from eagle_jax import config
from eagle_jax.errors import EagleError
from eagle_jax.language import LANGUAGE_MODELS, LlamaSize
from eagle_jax.model.eagle import EagleSize
from eagle_jax.registry import lookup

EXPERTS = {
  "clip-448": "clip",
  "convnext-1024": "convnext",
  "sam-1024": "sam",
  "det-1024": "eva02",
  "pix2struct-1024": "pix2struct",
}
"""Upstream's name of an expert in `mm_vision_tower` → ours; both stand in channel order."""

FIELDS = {
  "hidden_size": "width",
  "num_hidden_layers": "depth",
  "num_attention_heads": "num_heads",
  "num_key_value_heads": "num_kv_heads",
  "intermediate_size": "mlp_width",
  "rope_theta": "rope_theta",
  "rms_norm_eps": "norm_eps",
  "tie_word_embeddings": "tied",
}
"""Field of transformers' Llama → field of `LlamaSize`."""

DEFAULTS: Mapping[str, Any] = {"rope_theta": 1e4, "tie_word_embeddings": False}
"""What transformers takes for a field that an older file does not have."""

OWN = "eagle_jax"
"""Field with the model section of a config, where upstream's fields cannot tell all."""

BUILT = ("experts", "fusion", "projector", "language", "vocab_rows", "image_size", "grid_side")
"""What of a model section decides the shapes."""

FIXED: Mapping[str, Any] = {
  "architectures": ["EagleLlamaForCausalLM"],
  "model_type": "eagle_llama",
  "hidden_act": "silu",
  "attention_bias": False,
  "mm_vision_select_layer": -2,
  "mm_vision_select_feature": "patch",
  "mm_patch_merge_type": "flat",
  "mm_use_im_start_end": False,
  "mm_use_im_patch_token": False,
  "mm_projector_lr": None,
  "image_aspect_ratio": "pad",
  "tokenizer_padding_side": "right",
  "tokenizer_model_max_length": 2048,
  "tune_mm_mlp_adapter": False,
  "freeze_mm_mlp_adapter": False,
  "use_mm_proj": True,
  "use_cache": True,
}
"""Fields that are the same in every release."""


def read(values: Mapping[str, Any], *, rows: int, place: str) -> config.Model:
  """Returns the model section that builds what a config.json describes.

  Args:
    values: the file's fields.
    rows: of the embedding table, from the tensor; files are known to give another number.
    place: of the file, for messages.

  Raises:
    EagleError: for a missing field, an expert or a language model that is not known here.
  """
  if OWN in values:
    return _own(values[OWN], place)
  tower = _field(values, "mm_vision_tower", place)
  experts = tuple(lookup(EXPERTS, name, what="vision expert") for name in str(tower).split(";"))
  name = _language(values, place)
  own = LANGUAGE_MODELS[name].vocab
  return config.Model(
    experts=experts,
    projector=str(_field(values, "mm_projector_type", place)),
    language=name,
    vocab_rows=0 if rows == own else rows,
  )


def write(model: config.Model, size: EagleSize, *, dtype: str) -> dict[str, Any]:
  """Returns the config.json of a model, with upstream's fields.

  A model that upstream could not build, such as one with small experts, says so in the
  field OWN, and is built from that when it comes back.

  Args:
    model: the section of a config that describes it.
    size: what it builds.
    dtype: of its parameters, such as 'bfloat16'.

  Raises:
    EagleError: if an expert has no name upstream.
  """
  ours = {name: theirs for theirs, name in EXPERTS.items()}
  names = [lookup(ours, name, what="vision expert of upstream's") for name, _ in size.experts]
  language = size.language
  fields = {
    **FIXED,
    **{theirs: getattr(language, field) for theirs, field in FIELDS.items()},
    "vocab_size": language.vocab,
    "max_position_embeddings": language.max_positions,
    "mm_vision_tower": ";".join(names),
    "mm_hidden_size": sum(expert.channels for _, expert in size.experts),
    "mm_projector_type": size.projector,
    "torch_dtype": dtype,
  }
  place = "the config.json to be written"
  alike = read(fields, rows=language.vocab, place=place)
  built = {field: getattr(model, field) for field in BUILT}
  return fields if built == {f: getattr(alike, f) for f in BUILT} else {**fields, OWN: built}


def write_language(size: LlamaSize, *, dtype: str) -> dict[str, Any]:
  """Returns the config.json of a language model alone, as transformers' Llama has it."""
  return {
    "architectures": ["LlamaForCausalLM"],
    "model_type": "llama",
    "hidden_act": "silu",
    **{theirs: getattr(size, field) for theirs, field in FIELDS.items()},
    "head_dim": size.head_dim,
    "vocab_size": size.vocab,
    "max_position_embeddings": size.max_positions,
    "torch_dtype": dtype,
  }


def _language(values: Mapping[str, Any], place: str) -> str:
  """Returns the name of the language model with a file's fields."""
  given = {field: _field(values, theirs, place) for theirs, field in FIELDS.items()}
  for name, size in LANGUAGE_MODELS.items():
    if all(getattr(size, field) == value for field, value in given.items()):
      return name
  told = ", ".join(f"{theirs}={values.get(theirs)}" for theirs in FIELDS)
  raise EagleError(
    f"{place} describes a language model that is in no row of the table ({told}). "
    f"Known: {', '.join(sorted(LANGUAGE_MODELS))}."
  )


def _field(values: Mapping[str, Any], name: str, place: str) -> Any:
  """Returns a field, or what transformers takes for it where it is missing."""
  if name in values:
    return values[name]
  if name == "num_key_value_heads" and "num_attention_heads" in values:
    return values["num_attention_heads"]
  if name in DEFAULTS:
    return DEFAULTS[name]
  raise EagleError(f"{place} must have the field {name!r}, as a merged EAGLE checkpoint has")


def _own(built: Any, place: str) -> config.Model:
  """Returns the model section that this project wrote into a config.json itself."""
  try:
    return config.Model(**{**built, "experts": tuple(built["experts"])})
  except (TypeError, KeyError) as error:
    raise EagleError(f"{place}: the field {OWN!r} must describe a model: {error}") from None


def rows_of(entries: Mapping[str, Any]) -> int:
  """Returns the rows of the embedding table [V, D] among a checkpoint's tensors.

  Raises:
    EagleError: if there is no such table.
  """
  name = "model.embed_tokens.weight"
  if name not in entries or len(entries[name].shape) != 2:
    raise EagleError(f"a merged checkpoint must hold {name!r} of two axes")
  return int(entries[name].shape[0])
