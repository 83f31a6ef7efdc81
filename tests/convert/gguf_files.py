"""Small GGUF files, written by the format's own package; tests that import this need it."""

import numpy as np
import pytest

gguf = pytest.importorskip("gguf")

F32, F16 = gguf.GGMLQuantizationType.F32, gguf.GGMLQuantizationType.F16
BF16 = gguf.GGMLQuantizationType.BF16
Q8_0, Q4_1 = gguf.GGMLQuantizationType.Q8_0, gguf.GGMLQuantizationType.Q4_1


def save(path, tensors, *, kinds=None, facts=None):
  """Writes float32 tensors, each in the type that `kinds` gives it, and metadata.

  Args:
    path: of the file.
    tensors: name → array.
    kinds: name → type, F32 for those it does not name.
    facts: key → number, text, truth value or list of these.
  """
  writer = gguf.GGUFWriter(path, arch="llama")
  for key, value in (facts or {}).items():
    kind = gguf.GGUFValueType.get_type(value)
    inner = gguf.GGUFValueType.get_type(value[0]) if isinstance(value, list) else None
    writer.add_key_value(key, value, kind, sub_type=inner)
  for name, array in tensors.items():
    kind = (kinds or {}).get(name, F32)
    whole = np.array(array, np.float32, order="C")
    if kind in (F32, F16):
      writer.add_tensor(name, whole if kind == F32 else whole.astype(np.float16))
    else:
      writer.add_tensor(name, gguf.quantize(whole, kind), raw_dtype=kind)
  writer.write_header_to_file()
  writer.write_kv_data_to_file()
  writer.write_tensors_to_file()
  writer.close()
  return path


def llama(path, size, kinds=None, facts=None):
  """Writes a language model of a size with random weights, and further metadata."""
  rng = np.random.default_rng(0)
  wide, narrow = size.num_heads * size.head_dim, size.num_kv_heads * size.head_dim
  layer = {
    "attn_norm": (size.width,),
    "attn_q": (wide, size.width),
    "attn_k": (narrow, size.width),
    "attn_v": (narrow, size.width),
    "attn_output": (size.width, wide),
    "ffn_norm": (size.width,),
    "ffn_gate": (size.mlp_width, size.width),
    "ffn_up": (size.mlp_width, size.width),
    "ffn_down": (size.width, size.mlp_width),
  }
  shapes = {"token_embd.weight": (size.vocab, size.width), "output_norm.weight": (size.width,)}
  shapes |= {f"blk.{n}.{k}.weight": shape for n in range(size.depth) for k, shape in layer.items()}
  if not size.tied:
    shapes["output.weight"] = (size.vocab, size.width)
  tensors = {name: rng.normal(size=shape) / shape[-1] ** 0.5 for name, shape in shapes.items()}
  for name in shapes:
    if "norm" in name:
      tensors[name] = 1 + 0.1 * rng.normal(size=shapes[name])
  known = {
    "llama.block_count": size.depth,
    "llama.attention.head_count": size.num_heads,
    "llama.attention.head_count_kv": size.num_kv_heads,
    "llama.rope.freq_base": size.rope_theta,
    "llama.attention.layer_norm_rms_epsilon": size.norm_eps,
  }
  chosen = {name: kinds for name in shapes if kinds and "norm" not in name}
  return save(path, tensors, kinds=chosen, facts=known | (facts or {}))
