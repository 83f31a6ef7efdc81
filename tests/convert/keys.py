"""Names, shapes and dtypes of the published checkpoints, without their data.

`keys/NAME.json.gz` holds one checkpoint each: `eagle_*` are EAGLE's merged ones, the others
its experts as their authors published them. They were derived from the original code; of
`sam_vit_l_meta_naming` the image encoder without its neck, of the open_clip file the image
encoder, and of the detector its backbone.
"""

import dataclasses
import functools
import gzip
import json
import pathlib

import ml_dtypes
import numpy as np

from eagle_jax.convert.source import ArraySource, Lazy

FOLDER = pathlib.Path(__file__).with_suffix("")
SUFFIX = ".json.gz"

NAMES = tuple(sorted(path.name.removesuffix(SUFFIX) for path in FOLDER.glob("*" + SUFFIX)))
MERGED = tuple(name for name in NAMES if name.startswith("eagle_"))
STANDALONE = tuple(name for name in NAMES if name not in MERGED)

DTYPES = {"float32": np.dtype(np.float32), "bfloat16": np.dtype(ml_dtypes.bfloat16)}


@dataclasses.dataclass(frozen=True)
class Keys:
  """One checkpoint.

  Attributes:
    tensors: name → shape, dtype. A shape that differs between published files is ().
    into: name → what EAGLE calls the tensor, below the expert's prefix for a standalone
      one; None where EAGLE does not load it or computes it itself.
    fresh: tensors of EAGLE that it draws anew when it starts from this checkpoint.
  """

  tensors: dict[str, tuple[tuple[int, ...], np.dtype]]
  into: dict[str, str | None]
  fresh: tuple[str, ...]

  @property
  def unused(self) -> set[str]:
    """Names of the tensors that EAGLE does not load."""
    return {name for name, into in self.into.items() if into is None}

  def source(self, *foreign: str) -> ArraySource:
    """Returns a source that can be planned with and not be read.

    Args:
      foreign: further names, of tensors with one element.
    """
    tensors = self.tensors | dict.fromkeys(foreign, ((1,), DTYPES["float32"]))
    return ArraySource(
      {name: Lazy(shape, dtype, _unread) for name, (shape, dtype) in tensors.items()}
    )


def _unread():
  raise AssertionError("a plan must not read a tensor")


@functools.cache
def load(name: str) -> Keys:
  """Returns one of NAMES."""
  found = json.loads(gzip.decompress((FOLDER / (name + SUFFIX)).read_bytes()))
  tensors, into = {}, {}
  for key, (shape, dtype, target) in found["keys"].items():
    tensors[key] = (tuple(shape or ()), DTYPES[dtype])
    into[key] = target
  return Keys(tensors, into, tuple(found["fresh"]))
