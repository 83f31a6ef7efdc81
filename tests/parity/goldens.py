"""Golden files: found by what they say of themselves, read, and compared with, in one place.

A golden is an npz with a JSON text `__meta__` and tensors stored whole (`NAME`) or
strided (`NAME@sub` with `NAME@strides`), most with `NAME@stat` of the whole tensor. The
folder is that of the environment variable EAGLE_GOLDENS; without it, this folder's
`goldens/` and, when it is there, the oracle beside the repository.
"""

import dataclasses
import functools
import json
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from eagle_jax.convert import engine, source
from tests.parity import recipe
from tests.parity.measured import MEASURED, Measured

HERE = Path(__file__).parent / "goldens"
ORACLE = Path(__file__).parents[3] / "shared" / "oracle" / "goldens"


@dataclasses.dataclass(frozen=True)
class Golden:
  """One file.

  Attributes:
    path: where it lies; its stem is the golden's name.
    meta: what the file says of itself.
    kind: expert, language, e2e, generate, grads, adamw, preprocess or preprocess_experts.
  """

  path: Path
  meta: Mapping[str, Any]
  kind: str

  def __str__(self) -> str:
    return self.path.stem

  def __hash__(self) -> int:
    return hash(self.path)

  @property
  def salt(self) -> str:
    """What is put before every name of the recipe."""
    return self.meta.get("salt", "")

  @functools.cached_property
  def arrays(self) -> dict[str, np.ndarray]:
    """Every stored array under its stored name, suffixes included."""
    with np.load(self.path) as file:
      return {name: file[name] for name in file.files if name != "__meta__"}

  @property
  def names(self) -> list[str]:
    """Names of the tensors, without suffixes, in the file's order."""
    return list(dict.fromkeys(name.split("@")[0] for name in self.arrays))

  def __contains__(self, name: str) -> bool:
    return name in self.arrays or f"{name}@sub" in self.arrays

  def __getitem__(self, name: str) -> np.ndarray:
    return self.arrays[name]

  def ndim(self, name: str) -> int:
    """Returns the axes of a tensor, stored whole or strided."""
    return self.arrays[name if name in self.arrays else f"{name}@sub"].ndim


def folders() -> list[Path]:
  """Returns where goldens are looked for, first come first served.

  Raises:
    FileNotFoundError: if EAGLE_GOLDENS names a folder without golden files; running
      no test at all would look like passing.
  """
  chosen = os.environ.get("EAGLE_GOLDENS")
  if chosen:
    if not any(Path(chosen).glob("*.npz")):
      raise FileNotFoundError(f"EAGLE_GOLDENS={chosen} holds no golden file (*.npz)")
    return [Path(chosen)]
  return [folder for folder in (HERE, ORACLE) if folder.is_dir()]


@functools.cache
def _meta(path: Path) -> Golden | None:
  """Reads what a file says of itself; None if it says nothing."""
  with np.load(path) as file:
    if "__meta__" not in file.files:
      return None
    meta = json.loads(bytes(file["__meta__"]).decode())
    return Golden(path, meta, _kind(meta, {name.split("@")[0] for name in file.files}))


def _kind(meta: Mapping[str, Any], tensors: set[str]) -> str:
  """Infers the kind of a file from its configuration and the tensors it holds."""
  signs = (
    ("expert", "tower" in meta),
    ("adamw", "grad_norm_before_clip" in tensors),
    ("grads", "param_grad_norms" in tensors),
    ("generate", "llm" in meta and "generated" in " ".join(tensors)),
    ("e2e", "llm" in meta and "merged_attention_mask" in tensors),
    ("language", "vocab_size" in meta.get("config", {})),
    ("preprocess", "processor" in meta),
    ("preprocess_experts", any(name.startswith(("clip_", "pix2struct_")) for name in tensors)),
  )
  return next((kind for kind, holds in signs if holds), "unknown")


def discover(kind: str) -> list[Golden]:
  """Returns the goldens of a kind, sorted by name; full-size ones only if EAGLE_FULL=1."""
  found: dict[str, Golden] = {}
  for folder in folders():
    for path in sorted(folder.glob("*.npz")):
      golden = _meta(path)
      if golden and golden.kind == kind and path.name not in found:
        found[path.name] = golden
  full = os.environ.get("EAGLE_FULL") == "1"
  return [found[name] for name in sorted(found) if full or not is_full(found[name])]


def is_full(golden: Golden) -> bool:
  """Whether the golden is an expert at its released size: it then gives no configuration."""
  return golden.kind == "expert" and "config" not in golden.meta


def load(name: str) -> Golden:
  """Returns the golden of a file name, with or without '.npz'.

  Raises:
    FileNotFoundError: if no folder holds it.
  """
  for folder in folders():
    path = folder / f"{name.removesuffix('.npz')}.npz"
    golden = _meta(path) if path.exists() else None
    if golden:
      return golden
  raise FileNotFoundError(f"no golden {name} in {', '.join(map(str, folders()))}")


def reference(golden: Golden) -> Golden:
  """Returns the golden whose keys, configuration and batch this one uses; maybe itself.

  Some name it ('keys': 'as in FILE.npz', or in the prose of 'what'); gradients do
  neither, they share language model, experts, pictures and salt with a whole-model file.

  Raises:
    FileNotFoundError: if that file is not there.
  """
  keys = golden.meta.get("keys")
  if isinstance(keys, Mapping):
    return golden
  named = re.search(r"\w+\.npz", f"{keys or ''} {golden.meta.get('what', '')}")
  if named:
    return reference(load(named[0]))
  shared = ("llm", "expert_configs", "images", "salt")
  for other in discover("e2e"):
    alike = all(other.meta.get(field) == golden.meta.get(field) for field in shared)
    if alike and isinstance(other.meta.get("keys"), Mapping):
      return other
  raise FileNotFoundError(f"{golden}: no golden has the configuration it refers to")


def pictures(golden: Golden) -> np.ndarray:
  """Returns the normalised float32 pictures [n, H, W, 3] a golden was fed, in order."""
  named = golden.meta["images"] or [] if "images" in golden.meta else [golden.meta["image"]]
  side = golden.meta.get("input_image_size", 1024)
  made = [_picture(entry, side, golden.salt) for entry in named]
  return np.stack(made) if made else np.zeros((0, side, side, 3), np.float32)


def _picture(entry: Any, side: int, salt: str) -> np.ndarray:
  """Returns one picture [H, W, 3]: 'zeros', a name at the golden's side, or [name, H, W]."""
  if entry == "zeros":
    return np.zeros((side, side, 3), np.float32)
  name, height, width = (entry, side, side) if isinstance(entry, str) else entry
  return recipe.pixels(recipe.image(name, height, width, salt))


def weights(golden: Golden) -> source.ArraySource:
  """Returns the golden's state dict, PyTorch names and layout, drawn tensor by tensor on demand.

  Derived tables are listed, as in a real checkpoint, and refuse to be read.
  """
  entries = {
    name: source.Lazy(
      tuple(entry[0]),
      np.dtype(np.float32),
      functools.partial(recipe.weight, name, tuple(entry[0]), golden.salt),
    )
    for name, entry in reference(golden).meta["keys"].items()
  }
  return source.ArraySource(entries, f"the weights of {golden}")


def params_for(golden: Golden) -> dict[str, Any]:
  """Returns the parameters of a whole-model golden, through the real table and engine."""
  # Here, so that golden files can be read without building a model.
  from eagle_jax.model import eagle
  from eagle_jax.model import weights as whole
  from tests.parity import sizes

  size = sizes.eagle(reference(golden).meta)
  abstract = eagle.abstract_params(eagle.Eagle(size))
  return convert(weights(golden), whole.table(size), abstract)


def convert(weights: source.Source, table: Any, abstract: Mapping[str, Any]) -> dict[str, Any]:
  """Returns parameters: plan, then fill, as every import does."""
  planned = engine.plan(weights, table, abstract)
  # What is carried becomes no parameter, so a derived table must not be needed for one.
  params, _ = engine.fill(dataclasses.replace(planned, carried=()), weights)
  return params


def limit_of(golden: Golden, tensor: str) -> tuple[float, bool]:
  """Returns the bound of a tensor's error, and whether it is absolute (else relative l2).

  Source: the oracle's acceptance levels. Experts have fixed bounds; everything else ten
  times the measured float32 noise of the file itself.
  """
  if tensor.endswith(("freqs_cos", "freqs_sin", "rope_cos", "rope_sin")):
    return 1e-5, True
  if golden.kind == "expert":
    return _expert_limit(golden.meta["tower"], is_full(golden)), False
  noise = golden.meta.get("noise", {})
  if "loss" in tensor:
    if golden.kind == "adamw":
      return 1e-5, True
    return max(10 * noise.get(tensor, {}).get("f64_max_abs", 0.0), 2e-6), True
  if golden.kind == "preprocess_experts":
    return _expert_limit(tensor[:3], False), False
  known = {name: entry["f64_rel_l2"] for name, entry in noise.items() if "f64_rel_l2" in entry}
  # A tensor without noise of its own has that of its neighbours.
  return 10 * known.get(tensor, float(np.median([*known.values()] or [1e-7]))), False


def _expert_limit(tower: str, full: bool) -> float:
  """Returns the relative bound of an expert's tensors."""
  if tower.startswith("pix"):
    return 6e-5 if full else 1e-5
  return 1e-5 if full else 4e-6


def relative(got: np.ndarray, want: np.ndarray) -> float:
  """Returns the l2 norm of the difference over the l2 norm of `want`, in float64."""
  difference = np.asarray(got, np.float64) - np.asarray(want, np.float64)
  return float(np.linalg.norm(difference) / max(np.linalg.norm(np.float64(want)), 1e-30))


def compare(
  golden: Golden, tensor: str, got: Any, *, where: np.ndarray | None = None
) -> list[Measured]:
  """Measures an array against the stored tensor and its statistics, and records it.

  Args:
    golden: the file.
    tensor: name in the file, without suffix.
    got: the whole array, as the file lays it out.
    where: booleans [...] over leading axes; the rest is not compared, nor are the
      statistics, which cover the whole tensor.

  Returns:
    one entry for the values, one for the statistics where they apply.
  """
  got = np.asarray(got)
  if f"{tensor}@sub" in golden.arrays:
    want, strides = golden[f"{tensor}@sub"], golden[f"{tensor}@strides"]
    shape = tuple(int(n) for n in golden[f"{tensor}@shape"])
  else:
    want, strides = golden[tensor], np.ones(golden[tensor].ndim, int)
    shape = want.shape
  if got.shape != shape:
    raise AssertionError(f"{golden} {tensor}: shape {got.shape}, the golden has {shape}")
  part = tuple(slice(None, None, int(step)) for step in strides)
  mask = np.ones(shape, bool)
  if where is not None:
    mask &= where.reshape(where.shape + (1,) * (got.ndim - where.ndim))
  kept = mask[part]
  bound, absolute = limit_of(golden, tensor)
  a, b = got[part][kept], want[kept]
  error = float(np.abs(np.float64(a) - b).max()) if absolute else relative(a, b)
  found = [Measured(str(golden), tensor, error, bound, absolute)]
  if where is None and f"{tensor}@stat" in golden.arrays and not absolute:
    wanted = golden[f"{tensor}@stat"]
    # Mean and deviation are held against the root mean square, norm and maximum against themselves.
    rms = wanted[2] / np.sqrt(got.size)
    scales = np.maximum([rms, rms, wanted[2], wanted[3]], 1e-30)
    error = float(np.max(np.abs(recipe.stats(got) - wanted) / scales))
    found.append(Measured(str(golden), f"{tensor}@stat", error, bound))
  MEASURED.extend(found)
  return found


def assert_close(golden: Golden, tensor: str, got: Any, *, where: np.ndarray | None = None) -> None:
  """Compares and fails on anything beyond its limit; NaN is beyond every limit."""
  beyond = [m for m in compare(golden, tensor, got, where=where) if not m.error <= m.limit]
  assert not beyond, "; ".join(
    f"{m.golden} {m.tensor}: {m.error:.2e}, limit {m.limit:.1e}" for m in beyond
  )
