"""Which reader a file or folder of foreign tensors is given to, by its name alone."""

import functools
from collections.abc import Callable, Mapping
from pathlib import Path

from eagle_jax.convert.gguf_file import GgufSource
from eagle_jax.convert.npz_file import NpzSource
from eagle_jax.convert.source import INDEX, SINGLE, SafetensorsSource, ShardedSource, Source
from eagle_jax.convert.torch_file import TorchSource
from eagle_jax.errors import EagleError
from eagle_jax.registry import nearest

Reader = Callable[[Path], Source]

SUFFIXES: Mapping[str, Reader] = {
  ".safetensors": SafetensorsSource,
  ".bin": TorchSource,
  ".pth": TorchSource,
  ".pt": TorchSource,
  ".gguf": GgufSource,
  ".npz": NpzSource,
}
"""End of a file's name to what reads it."""

NAMES: Mapping[str, Reader] = {
  INDEX: functools.partial(ShardedSource, suffix=".safetensors", open_file=SafetensorsSource),
  SINGLE: SafetensorsSource,
  "pytorch_model.bin.index.json": functools.partial(
    ShardedSource, suffix=".bin", open_file=TorchSource
  ),
  "pytorch_model.bin": TorchSource,
}
"""Files a folder is read by, the first that is there. No other file of it is looked at,
unless an index names it."""


def open_source(path: str | Path) -> Source:
  """Opens a file, an index, or a folder of foreign tensors.

  Raises:
    EagleError: if nothing is there, no reader is known for it, or it is damaged.
  """
  found = Path(path)
  if found.is_dir():
    name = next((name for name in NAMES if (found / name).is_file()), None)
    if name is None:
      raise EagleError(f"no checkpoint in {path}: it must hold one of {', '.join(NAMES)}")
    return NAMES[name](found / name)
  if not found.is_file():
    raise EagleError(f"no checkpoint at {path}: there is neither a file nor a folder")
  reader = NAMES.get(found.name) or SUFFIXES.get(found.suffix)
  if reader is None:
    raise EagleError(
      f"{path} ends in {found.suffix!r}{nearest(found.suffix, SUFFIXES) or ', not known.'} "
      f"Known: {', '.join(SUFFIXES)}."
    )
  return reader(found)
