"""Vision experts by name: the module, its sizes and its weight table.

Each lies in the file of its name, here and in `weights/`. Both are imported when first
asked for, since tables and the command line must not wait for jax.
"""

from __future__ import annotations

import dataclasses
import importlib
import typing
from collections.abc import Callable, Mapping

from eagle_jax.errors import EagleError
from eagle_jax.registry import lookup

if typing.TYPE_CHECKING:
  from eagle_jax.convert.rules import Table
  from eagle_jax.convert.schemes import Scheme
  from eagle_jax.types import ExpertSize, ModuleType


@dataclasses.dataclass(frozen=True)
class Expert:
  """Where an expert is to be found.

  Attributes:
    file: module of this package that holds it, and of `weights` that holds its table.
    class_name: its Flax module there; fields size, dtype, remat; takes pixels
      [B, H, W, 3] normalised with CLIP's mean and deviation, gives a grid [B, h, w, C].
  """

  file: str
  class_name: str

  @property
  def module(self) -> ModuleType:
    """The Flax module."""
    return typing.cast("ModuleType", getattr(self._expert(), self.class_name))

  @property
  def sizes(self) -> Mapping[str, ExpertSize]:
    """Its sizes by name, "released" and "demo" among them."""
    return typing.cast("Mapping[str, ExpertSize]", self._expert().SIZES)

  @property
  def table(self) -> Callable[[typing.Any], Table]:
    """Function from one of its sizes to the weight table of that size."""
    return typing.cast("Callable[[typing.Any], Table]", self._weights().table)

  @property
  def schemes(self) -> tuple[Scheme, ...]:
    """The ways in which files of this expert name its tensors, EAGLE's first."""
    return typing.cast("tuple[Scheme, ...]", self._weights().SCHEMES)

  def _weights(self) -> typing.Any:
    """The Python module with the weight tables."""
    return importlib.import_module(f"{__name__}.weights.{self.file}")

  def _expert(self) -> typing.Any:
    """The Python module with the network, [B, H, W, 3] to [B, h, w, C]."""
    return importlib.import_module(f"{__name__}.{self.file}")


EXPERTS: dict[str, Expert] = {
  "clip": Expert("clip", "Clip"),
  "convnext": Expert("convnext", "ConvNext"),
  "sam": Expert("sam", "Sam"),
  "eva02": Expert("eva02", "Eva02"),
  "pix2struct": Expert("pix2struct", "Pix2Struct"),
  "dinov2": Expert("dinov2", "Dinov2"),
  "siglip": Expert("siglip", "SigLip"),
}
"""Name of an expert in a config → where it is."""


def parse(text: str) -> tuple[str, ExpertSize]:
  """Reads a config's "clip" or "clip@448" as a name and a size, "released" by default.

  The size says what grid [h, w, C] comes out of which picture.

  Raises:
    EagleError: for an expert or a size that is in no table, naming the nearest.
  """
  name, at, size = text.partition("@")
  if at and not size:
    raise EagleError(f"an expert is written 'name' or 'name@size', no size follows in {text!r}")
  sizes = lookup(EXPERTS, name, what="vision expert").sizes
  return name, lookup(sizes, size or "released", what=f"size of the vision expert {name!r}")
