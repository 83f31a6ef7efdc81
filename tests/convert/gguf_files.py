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
