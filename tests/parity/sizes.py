"""From the configurations that golden files carry to the size objects of the modules."""

import dataclasses
import re
from collections.abc import Mapping
from typing import Any

from eagle_jax import vision
from eagle_jax.language.llama import LlamaSize
from eagle_jax.model.eagle import EagleSize
from eagle_jax.types import ExpertSize
from eagle_jax.vision.clip import ClipSize
from eagle_jax.vision.convnext import ConvNextSize
from eagle_jax.vision.eva02 import Eva02Size
from eagle_jax.vision.pix2struct import SIZES as PIX2STRUCT
from eagle_jax.vision.sam import SamSize

NAMES = {"clip": "clip", "convnext": "convnext", "sam": "sam", "eva": "eva02", "pix": "pix2struct"}
"""What the files call an expert → what it is called here."""

Config = Mapping[str, Any]


def kinds(depth: int, special: list[int], *, inside: str, outside: str) -> tuple[str, ...]:
  """Returns the kind of each of `depth` blocks: `inside` the listed ones, else `outside`."""
  return tuple(inside if n in special else outside for n in range(depth))


def clip(config: Config, image_size: int) -> ClipSize:
  """Returns the size of a CLIP fed pictures of `image_size`."""
  return ClipSize(
    image_size=image_size,
    patch=config["patch_size"],
    table_side=config["image_size"] // config["patch_size"],
    width=config["hidden_size"],
    depth=config["num_hidden_layers"],
    num_heads=config["num_attention_heads"],
    mlp_width=config["intermediate_size"],
    norm_eps=config.get("layer_norm_eps", 1e-5),
  )


def convnext(config: Config, image_size: int) -> ConvNextSize:
  """Returns the size of a ConvNeXt."""
  return ConvNextSize(
    image_size=image_size,
    depths=tuple(config["depths"]),
    dims=tuple(config["dims"]),
    norm_eps=config["norm_eps"],
  )


def sam(config: Config, image_size: int) -> SamSize:
  """Returns the size of a SAM encoder; its picture is what its position table is for."""
  assert image_size == config["image_size"]
  depth, chosen = config["num_hidden_layers"], config["global_attn_indexes"]
  return SamSize(
    image_size=image_size,
    patch=config["patch_size"],
    width=config["hidden_size"],
    num_heads=config["num_attention_heads"],
    kinds=kinds(depth, chosen, inside="global", outside="window"),
    window=config["window_size"],
    rows_at_once=4,
    neck_width=config["output_channels"],
  )


def eva(config: Config, image_size: int) -> Eva02Size:
  """Returns the size of an EVA-02."""
  depth, chosen = config["depth"], config["window_block_indexes"]
  return Eva02Size(
    image_size=image_size,
    patch=config["patch_size"],
    width=config["embed_dim"],
    num_heads=config["num_heads"],
    kinds=kinds(depth, chosen, inside="window", outside="global"),
    window=config["window_size"],
    pretrain_side=config["pretrain_img_size"] // config["patch_size"],
  )


def pix(config: Config, image_size: int) -> ExpertSize:
  """Returns the size of a Pix2Struct; the number of patches and the grid are upstream's own."""
  return dataclasses.replace(
    PIX2STRUCT["released"],
    image_size=image_size,
    table_length=config["seq_len"],
    width=config["hidden_size"],
    depth=config["num_hidden_layers"],
    num_heads=config["num_attention_heads"],
    head_dim=config["d_kv"],
    mlp_width=config["d_ff"],
  )


BUILDERS = {"clip": clip, "convnext": convnext, "sam": sam, "eva": eva, "pix": pix}


def expert(meta: Config) -> tuple[str, ExpertSize]:
  """Returns name and size of the expert of a golden; without configuration the released one."""
  tower = meta["tower"]
  if "config" in meta:
    return NAMES[tower], BUILDERS[tower](meta["config"], meta["input_image_size"])
  name, size = re.fullmatch(r"([a-z]+)(\d*)", tower).groups()
  return NAMES[name], vision.EXPERTS[NAMES[name]].sizes[size or "released"]


def language(config: Config) -> LlamaSize:
  """Returns the size of a language model in Hugging Face's names."""
  heads = config["num_attention_heads"]
  return LlamaSize(
    vocab=config["vocab_size"],
    width=config["hidden_size"],
    depth=config["num_hidden_layers"],
    num_heads=heads,
    num_kv_heads=config.get("num_key_value_heads", heads),
    head_dim=config.get("head_dim", config["hidden_size"] // heads),
    mlp_width=config["intermediate_size"],
    rope_theta=config.get("rope_theta", 1e4),
    norm_eps=config["rms_norm_eps"],
    tied=config.get("tie_word_embeddings", False),
    max_positions=config.get("max_position_embeddings", 4096),
  )


def eagle(meta: Config) -> EagleSize:
  """Returns the size of the whole model of a golden that lists its keys."""
  side = meta["input_image_size"]
  configs = meta["expert_configs"]
  # Upstream resizes the picture for CLIP alone; all others see it as it is.
  sides = dict.fromkeys(configs, side) | {"clip": configs.get("clip", {}).get("image_size")}
  return EagleSize(
    experts=tuple((NAMES[t], BUILDERS[t](configs[t], sides[t])) for t in meta["towers"]),
    language=language(meta["llm"]),
    image_size=side,
    grid_side=meta["grid"],
    projector=_projector(meta["keys"]),
  )


def _projector(keys: Mapping[str, Any]) -> str:
  """Returns the projector that a merged checkpoint's names belong to."""
  if "model.mm_projector.weight" in keys:
    return "linear"
  layers = sum(bool(re.fullmatch(r"model\.mm_projector\.\d+\.weight", key)) for key in keys)
  return f"mlp{layers}x_gelu" if layers else "identity"
