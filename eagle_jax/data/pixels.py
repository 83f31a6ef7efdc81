"""Bytes of pictures as arrays, moved as seldom as can be.

Moving a picture's bytes costs a good part of decoding them: `view` looks at what Pillow
holds, and `room` gives memory that was used before, which the system need not clear.
"""

from __future__ import annotations

import ctypes
import math
import threading
import typing
import weakref

import numpy as np
from PIL import Image

if typing.TYPE_CHECKING:
  from jaxtyping import UInt8

_MOST_FREE = 4  # buffers that wait for another use
_free: list[UInt8[np.ndarray, " n"]] = []
_free_lock = threading.Lock()


class _ArrowArray(ctypes.Structure):
  """Where an array lies. Source: Apache Arrow, the C data interface."""


_ArrowArray._fields_ = [
  *((name, ctypes.c_int64) for name in ("length", "null_count", "offset")),
  *((name, ctypes.c_int64) for name in ("n_buffers", "n_children")),
  ("buffers", ctypes.POINTER(ctypes.c_void_p)),
  ("children", ctypes.POINTER(ctypes.POINTER(_ArrowArray))),
]


class _Memory:
  """Memory for NumPy, which keeps this object for as long as any array looks at it."""

  def __init__(self, address: int, shape: tuple[int, ...], owner: object):
    """Takes uint8 of a shape; `owner` keeps them where they are."""
    self.__array_interface__ = {
      "version": 3,
      "data": (address, False),
      "shape": shape,
      "typestr": "|u1",
    }
    self._owner = owner


def view(picture: Image.Image) -> UInt8[np.ndarray, "h w 4"]:
  """Returns the bytes of an RGB picture, a fourth of any value behind each pixel.

  They are not copied where Pillow can say where they lie (from 11.2 on, up to 4 million
  pixels); the picture is not to be changed any more.
  """
  export = getattr(picture, "__arrow_c_array__", None)
  try:
    capsule = export()[1] if export else None
  except ValueError:  # it lies in several pieces
    capsule = None
  if capsule is None:
    return np.asarray(picture.convert("RGBA"))
  address = _pointer(capsule, b"arrow_array")
  values = _ArrowArray.from_address(address).children[0].contents
  shape = (picture.height, picture.width, 4)
  return np.asarray(_Memory(values.buffers[1] + values.offset, shape, capsule))


_pointer = ctypes.pythonapi.PyCapsule_GetPointer
_pointer.restype, _pointer.argtypes = ctypes.c_void_p, (ctypes.py_object, ctypes.c_char_p)


def room(shape: tuple[int, ...]) -> UInt8[np.ndarray, "*shape"]:
  """Returns an array of any bytes; its memory is used again when nothing looks at it."""
  size = math.prod(shape)
  with _free_lock:
    fitting = [n for n, buffer in enumerate(_free) if size <= buffer.size <= 4 * size]
    buffer = _free.pop(fitting[0]) if fitting else None
  if buffer is None:
    buffer = np.empty(size, np.uint8)
  memory = _Memory(buffer.ctypes.data, shape, buffer)
  weakref.finalize(memory, _give_back, buffer).atexit = False
  return np.asarray(memory)


def _give_back(buffer: UInt8[np.ndarray, " n"]) -> None:
  """Keeps a buffer that nothing looks at any more; the one that waited longest goes."""
  # Without the lock, for this may run wherever an object dies; each call is one step.
  _free.append(buffer)
  if len(_free) > _MOST_FREE:
    _free.pop(0)
