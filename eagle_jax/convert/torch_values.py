"""What a pickle of PyTorch may name: storages, views of them, and inert markers for the rest.

A global in a pickle is a pair of words. `GLOBALS` is the list of those that a file of
tensors needs, each with what stands for it here; PyTorch's own are never imported.
"""

import collections
import dataclasses
import math
from collections.abc import Callable, Mapping
from typing import Any

import ml_dtypes
import numpy as np

from eagle_jax.convert.rules import Shape

MAX_AXES = 32
MAX_EMPTY = 2**40
"""Product of the other axes of a tensor that has an axis of length 0."""

STORAGES: Mapping[str, np.dtype] = {
  "DoubleStorage": np.dtype(np.float64),
  "FloatStorage": np.dtype(np.float32),
  "HalfStorage": np.dtype(np.float16),
  "BFloat16Storage": np.dtype(ml_dtypes.bfloat16),
  "LongStorage": np.dtype(np.int64),
  "IntStorage": np.dtype(np.int32),
  "ShortStorage": np.dtype(np.int16),
  "CharStorage": np.dtype(np.int8),
  "ByteStorage": np.dtype(np.uint8),
  "BoolStorage": np.dtype(np.bool_),
}
"""Names of PyTorch's storages, and of what elements they are."""


@dataclasses.dataclass(frozen=True, slots=True, eq=False)
class Storage:
  """A run of elements, kept outside the pickle under its key."""

  key: str
  dtype: np.dtype
  count: int


@dataclasses.dataclass(frozen=True, slots=True, eq=False)
class Tensor:
  """A view of a storage: first element, and per axis a length and a step, in elements."""

  storage: Storage
  offset: int
  shape: Shape
  strides: Shape


@dataclasses.dataclass(frozen=True, slots=True, eq=False)
class Function:
  """Stands for a global that may be called."""

  name: str
  call: Callable[[tuple[Any, ...]], Any]


def _ordered(arguments: tuple[Any, ...]) -> Any:
  """Returns an empty ordered dictionary; its items come later."""
  if arguments:
    raise ValueError("OrderedDict takes no arguments here")
  return collections.OrderedDict()


def _size(arguments: tuple[Any, ...]) -> Shape:
  """Returns the lengths that a torch.Size holds."""
  if len(arguments) != 1 or not _whole_numbers(arguments[0]):
    raise ValueError("torch.Size takes one tuple of whole numbers")
  lengths: Shape = arguments[0]
  return lengths


def _parameter(arguments: tuple[Any, ...]) -> Tensor:
  """Returns the tensor of a parameter."""
  if len(arguments) != 3 or not isinstance(arguments[0], Tensor):
    raise ValueError("_rebuild_parameter takes a tensor, whether it is trained, and hooks")
  _plain(arguments[1:])
  return arguments[0]


def _tensor(arguments: tuple[Any, ...]) -> Tensor:
  """Returns a view, after holding it against its storage."""
  if len(arguments) not in (6, 7) or not isinstance(arguments[0], Storage):
    raise ValueError("_rebuild_tensor_v2 takes a storage and 5 or 6 arguments more")
  storage, offset, shape, strides, *rest = arguments
  _plain(tuple(rest))
  if not (whole(offset) and _whole_numbers(shape) and _whole_numbers(strides)):
    raise ValueError("offset, shape and strides of a tensor must be whole numbers from 0")
  if len(shape) != len(strides):
    raise ValueError(f"a tensor of {len(shape)} axes and {len(strides)} strides")
  count = math.prod(shape)
  if count == 0:
    inside = offset <= storage.count and math.prod(max(n, 1) for n in shape) <= MAX_EMPTY
  else:
    last = offset + sum((n - 1) * step for n, step in zip(shape, strides, strict=True))
    # An axis of stride 0 repeats its elements, without end if it were not for the second.
    inside = last < storage.count and count <= storage.count
  if not inside:
    raise ValueError(
      f"a tensor reaches beyond storage {storage.key!r} of {storage.count} elements: "
      f"offset {told(offset)}, shape [{told(*shape)}], strides [{told(*strides)}]"
    )
  # The step along an axis of one element has no meaning, and may be of any size.
  steps = tuple(step if n > 1 else 0 for n, step in zip(shape, strides, strict=True))
  return Tensor(storage, offset, tuple(shape), steps)


def _plain(arguments: tuple[Any, ...]) -> None:
  """Checks that a tensor is trained or not, without hooks, and stands for its elements."""
  trained, *rest = arguments
  # Metadata would say that the elements are to be negated or conjugated when read.
  if type(trained) is not bool or any(
    value is not None and not (isinstance(value, dict) and not value) for value in rest
  ):
    raise ValueError("a tensor must have no hooks and no metadata")


def whole(value: Any) -> bool:
  """Whether this is a whole number from 0; True is none."""
  return type(value) is int and value >= 0


def _whole_numbers(values: Any) -> bool:
  """Whether this is a tuple of whole numbers from 0, at most one for each axis there may be."""
  # The length comes first: one long tuple could be given to every tensor of a pickle.
  return type(values) is tuple and len(values) <= MAX_AXES and all(map(whole, values))


def kind(value: Any) -> str:
  """Returns how messages call a value: its type, for it may be too deep to print."""
  return type(value).__name__.lstrip("_")


def told(*values: Any) -> str:
  """Returns numbers as text of bounded length."""
  return ", ".join(str(v) if whole(v) and v < 2**64 else f"a huge {kind(v)}" for v in values)


_CALLS: Mapping[tuple[str, str], Callable[[tuple[Any, ...]], Any]] = {
  ("collections", "OrderedDict"): _ordered,
  ("torch", "Size"): _size,
  ("torch._utils", "_rebuild_tensor_v2"): _tensor,
  ("torch._utils", "_rebuild_parameter"): _parameter,
}
GLOBALS: Mapping[tuple[str, str], Function | np.dtype] = {
  **{words: Function(".".join(words), call) for words, call in _CALLS.items()},
  **{("torch", name): dtype for name, dtype in STORAGES.items()},
}
"""Module and name of the globals there are, and what stands for each."""
