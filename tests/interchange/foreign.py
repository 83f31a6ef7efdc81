"""Small files as the original projects would have saved a part of a model."""

import numpy as np
import safetensors.numpy

from eagle_jax.convert import engine
from eagle_jax.interchange import parts
from tests.convert import torch_zip


def tensors(eagle, what, *, scheme=None, dtype=np.float32, seed=0):
  """Returns name → random array of a part, in the names of a scheme, by default the first."""
  part = parts.part(eagle, what)
  chosen = next(s for s in part.schemes if scheme in (None, s.name))
  leaves = engine.flatten(part.targets(chosen)[0])
  rng = np.random.default_rng(seed)
  params = {p: rng.normal(0, 0.1, leaf.shape).astype(dtype) for p, leaf in leaves.items()}
  return dict(engine.export(part.table(chosen), params))


def save(path, arrays):
  """Writes a file of the kind that the end of its name says, and returns its path as text."""
  path.parent.mkdir(parents=True, exist_ok=True)
  if path.suffix == ".safetensors":
    safetensors.numpy.save_file(arrays, path)
  else:
    state = {name: torch_zip.whole(array) for name, array in arrays.items()}
    torch_zip.save({"model": state} if path.suffix == ".pth" else state, path)
  return str(path)
