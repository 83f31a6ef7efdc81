"""Weight table of CLIP. Source: transformers, CLIPVisionModel."""

from eagle_jax.convert.rules import Carry, Drop, Rule, Table, conv, linear, merge, same
from eagle_jax.convert.schemes import Scheme

_LAYER = "vision_model.encoder.layers.{n}"
_ATTENTION = f"{_LAYER}.self_attn"

_RULES = (
  Rule("vision_model.embeddings.class_embedding", "class_embedding", same),
  Rule("vision_model.embeddings.patch_embedding.weight", "patches/kernel", conv),
  Rule("vision_model.embeddings.position_embedding.weight", "positions", same),
  Rule("vision_model.pre_layrnorm.weight", "pre_norm/scale", same),  # misspelt at the source
  Rule("vision_model.pre_layrnorm.bias", "pre_norm/bias", same),
  Rule(f"{_LAYER}.layer_norm1.weight", "blocks[{n}]/attention_norm/scale", same),
  Rule(f"{_LAYER}.layer_norm1.bias", "blocks[{n}]/attention_norm/bias", same),
  Rule(f"{_ATTENTION}.q_proj.weight", "blocks[{n}]/attention/query/kernel", linear),
  Rule(f"{_ATTENTION}.q_proj.bias", "blocks[{n}]/attention/query/bias", same),
  Rule(f"{_ATTENTION}.k_proj.weight", "blocks[{n}]/attention/key/kernel", linear),
  Rule(f"{_ATTENTION}.k_proj.bias", "blocks[{n}]/attention/key/bias", same),
  Rule(f"{_ATTENTION}.v_proj.weight", "blocks[{n}]/attention/value/kernel", linear),
  Rule(f"{_ATTENTION}.v_proj.bias", "blocks[{n}]/attention/value/bias", same),
  Rule(f"{_ATTENTION}.out_proj.weight", "blocks[{n}]/attention/out/kernel", linear),
  Rule(f"{_ATTENTION}.out_proj.bias", "blocks[{n}]/attention/out/bias", same),
  Rule(f"{_LAYER}.layer_norm2.weight", "blocks[{n}]/mlp_norm/scale", same),
  Rule(f"{_LAYER}.layer_norm2.bias", "blocks[{n}]/mlp_norm/bias", same),
  Rule(f"{_LAYER}.mlp.fc1.weight", "blocks[{n}]/mlp/fc1/kernel", linear),
  Rule(f"{_LAYER}.mlp.fc1.bias", "blocks[{n}]/mlp/fc1/bias", same),
  Rule(f"{_LAYER}.mlp.fc2.weight", "blocks[{n}]/mlp/fc2/kernel", linear),
  Rule(f"{_LAYER}.mlp.fc2.bias", "blocks[{n}]/mlp/fc2/bias", same),
  Carry("vision_model.post_layernorm.*", "EAGLE reads the last block without the norm behind it"),
  Carry("vision_model.embeddings.position_ids", "the numbers 0, 1, 2, …; old checkpoints only"),
)


def table(size: object) -> Table:
  """Returns the table, which is the same for every size."""
  del size  # the tables of all experts are asked for in one way
  return Table(_RULES)


_OTHER_HALF = Table(
  (
    Drop("text_model.*", "the text encoder, which EAGLE has no use for"),
    Drop("visual_projection.weight", "from the image encoder to the space shared with texts"),
    Drop("text_projection.weight", "from the text encoder to the space shared with images"),
    Drop("logit_scale", "temperature of the contrastive loss"),
  )
)


def _whole_model(size: object) -> Table:
  """Returns the table for files that may hold the text encoder beside the image encoder.

  Only the image encoder's kernels become [in, out].
  """
  return merge(table(size), _OTHER_HALF)


# EAGLE keeps transformers' names, so CLIPVisionModel and CLIPModel need no scheme of their own.
SCHEMES = (Scheme("eagle", "vision_model.pre_layrnorm.weight", _whole_model),)
