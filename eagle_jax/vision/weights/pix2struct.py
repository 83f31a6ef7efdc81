"""Weight tables of Pix2Struct's encoder. Source: transformers, Pix2StructVisionModel."""

from eagle_jax.convert.rules import Drop, Rule, Table, linear, merge, same
from eagle_jax.convert.schemes import Scheme

_LAYER = "encoder.layer.{n}"

_RULES = (
  Rule("embeddings.patch_projection.weight", "patches/kernel", linear),
  Rule("embeddings.patch_projection.bias", "patches/bias", same),
  Rule("embeddings.row_embedder.weight", "row_embedding", same),
  Rule("embeddings.column_embedder.weight", "column_embedding", same),
  Rule(f"{_LAYER}.pre_attention_layer_norm.weight", "blocks[{n}]/attention_norm/scale", same),
  Rule(f"{_LAYER}.attention.query.weight", "blocks[{n}]/attention/query/kernel", linear),
  Rule(f"{_LAYER}.attention.key.weight", "blocks[{n}]/attention/key/kernel", linear),
  Rule(f"{_LAYER}.attention.value.weight", "blocks[{n}]/attention/value/kernel", linear),
  Rule(f"{_LAYER}.attention.output.weight", "blocks[{n}]/attention/out/kernel", linear),
  Rule(f"{_LAYER}.pre_mlp_layer_norm.weight", "blocks[{n}]/mlp_norm/scale", same),
  Rule(f"{_LAYER}.mlp.wi_0.weight", "blocks[{n}]/mlp/gate/kernel", linear),
  Rule(f"{_LAYER}.mlp.wi_1.weight", "blocks[{n}]/mlp/up/kernel", linear),
  Rule(f"{_LAYER}.mlp.wo.weight", "blocks[{n}]/mlp/down/kernel", linear),
  Rule("layernorm.weight", "final_norm/scale", same),
)


def table(size: object) -> Table:
  """Returns the table, which is the same for every size."""
  del size  # the tables of all experts are asked for in one way
  return Table(_RULES)


_ENCODER = "encoder."
_MARK = "embeddings.patch_projection.weight"


def _whole_model(size: object) -> Table:
  """Returns the table of transformers' whole model: the encoder's names below a prefix.

  The patch projection (D, 768) becomes [768, D] under either name.
  """
  decoder = Drop("decoder.*", "the text decoder; EAGLE has its own language model")
  return merge(table(size).prefixed(_ENCODER, ""), Table((decoder,)))


SCHEMES = (
  Scheme("eagle", _MARK, table),  # transformers' encoder saved alone has these names too
  Scheme("hf", _ENCODER + _MARK, _whole_model),
)
