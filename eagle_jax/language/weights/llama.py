"""The Llama family in Hugging Face's names.

Source: transformers, modeling_llama.py; the tensor names of the public checkpoints.
"""

from eagle_jax.convert.rules import Drop, Rule, Table, linear, same

_LAYERS = (
  Rule("model.layers.{n}.input_layernorm.weight", "layers[{n}]/attention_norm/scale", same),
  Rule("model.layers.{n}.self_attn.q_proj.weight", "layers[{n}]/attention/query/kernel", linear),
  Rule("model.layers.{n}.self_attn.k_proj.weight", "layers[{n}]/attention/key/kernel", linear),
  Rule("model.layers.{n}.self_attn.v_proj.weight", "layers[{n}]/attention/value/kernel", linear),
  Rule("model.layers.{n}.self_attn.o_proj.weight", "layers[{n}]/attention/out/kernel", linear),
  Rule("model.layers.{n}.post_attention_layernorm.weight", "layers[{n}]/mlp_norm/scale", same),
  Rule("model.layers.{n}.mlp.gate_proj.weight", "layers[{n}]/mlp/gate/kernel", linear),
  Rule("model.layers.{n}.mlp.up_proj.weight", "layers[{n}]/mlp/up/kernel", linear),
  Rule("model.layers.{n}.mlp.down_proj.weight", "layers[{n}]/mlp/down/kernel", linear),
)


def table(tied: bool) -> Table:
  """Returns the table from a causal language model's tensors to language/.

  Args:
    tied: whether the logits come from the embedding table; a head that the file
      holds nevertheless is then the same tensor again.
  """
  head = (
    Drop("lm_head.weight", why="tied to the embedding table")
    if tied
    else Rule("lm_head.weight", "head/kernel", linear)
  )
  return Table(
    (
      Rule("model.embed_tokens.weight", "embed/embedding", same),
      *_LAYERS,
      Rule("model.norm.weight", "final_norm/scale", same),
      head,
      Drop("model.layers.{n}.self_attn.rotary_emb.inv_freq", why="computed from rope_theta"),
    )
  )
