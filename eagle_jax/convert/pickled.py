"""Pickles read as data: what PyTorch writes around tensors, and not one opcode more.

A pickle is a program. Here it runs on a machine without a world: opcodes come from a table,
a global is a pair of words looked up in another, and neither imports, calls or builds
anything but the dictionaries, lists and markers of this module. Everything else is refused
with the opcode and the byte it stands at. Memory and time are bounded by the size of the
pickle and by `MAX_STEPS`; no value is ever compared, hashed or printed in depth.

Source: the opcodes and their arguments are documented in Python's `pickletools`.
"""

import collections
import pickletools
import struct
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from eagle_jax.convert.torch_values import GLOBALS, Function, Storage, kind, told, whole
from eagle_jax.errors import EagleError

MAX_STEPS = 1_000_000
"""Opcodes a pickle may have. A tensor takes about 45, the largest checkpoints a few thousand."""
MAX_KEY = 2**60
"""Whole numbers this large could be chosen to collide as keys of a dictionary."""


def interpret(data: bytes, sizes: Mapping[str, int], where: str) -> Any:
  """Returns the value a pickle describes, with a `Tensor` for each of its tensors.

  Args:
    data: the pickle, of protocol 2 or later.
    sizes: key to number of bytes, of the storages there are.
    where: how messages call the pickle.

  Raises:
    EagleError: for whatever a file of tensors does not need, and for tensors that reach
      beyond their storage.
  """
  machine = _Machine(data, sizes)
  for _ in range(MAX_STEPS):
    start, name = machine.position, "none"
    try:
      name = machine.opcode()
      if name == "STOP":
        return machine.stop()
      if name not in _ACTIONS:
        raise ValueError("not among those that tensors need; this file may be malicious")
      _ACTIONS[name](machine)
    except ValueError as error:
      raise EagleError(f"{where} is refused at byte {start}, opcode {name}: {error}") from None
  raise EagleError(f"{where} is refused: it has more than {MAX_STEPS} opcodes")


class _Machine:
  """Stack, memo and position of a pickle that is being read."""

  def __init__(self, data: bytes, sizes: Mapping[str, int]):
    self.position = 0
    self._data = data
    self._sizes = sizes
    self._stack: list[Any] = []
    self._below: list[list[Any]] = []
    """The stacks that marks have put aside, innermost last."""
    self._memo: dict[int, Any] = {}

  def take(self, count: int) -> bytes:
    """Returns the next bytes."""
    taken = self._data[self.position : self.position + count]
    if len(taken) != count:
      raise ValueError(f"needs {count} bytes, {len(taken)} are left")
    self.position += count
    return taken

  def number(self, form: str) -> Any:
    """Returns the next number, in a form of `struct`."""
    return struct.unpack(form, self.take(struct.calcsize(form)))[0]

  def line(self) -> str:
    """Returns the text up to the next line feed."""
    end = self._data.find(b"\n", self.position)
    if end < 0:
      raise ValueError("a line does not end")
    return self.take(end + 1 - self.position)[:-1].decode("ascii")

  def opcode(self) -> str:
    """Returns the name of the next opcode."""
    code = self.take(1)
    if code not in _OPCODES:
      raise ValueError(f"there is no opcode 0x{code.hex()}")
    return _OPCODES[code]

  def push(self, value: Any) -> None:
    """Puts a value on the stack."""
    self._stack.append(value)

  def pop(self) -> Any:
    """Takes the last value from the stack."""
    if not self._stack:
      raise ValueError("the stack is empty")
    return self._stack.pop()

  def mark(self) -> None:
    """Begins a new stack on top of this one."""
    self._below.append(self._stack)
    self._stack = []

  def marked(self) -> list[Any]:
    """Ends the stack that the last mark began, and returns it."""
    if not self._below:
      raise ValueError("there is no mark")
    values, self._stack = self._stack, self._below.pop()
    return values

  def stop(self) -> Any:
    """Returns the one value left at the end."""
    value = self.pop()
    if self._stack or self._below:
      raise ValueError("values are left on the stack")
    if self.position != len(self._data):
      raise ValueError(f"{len(self._data) - self.position} bytes follow the end")
    return value

  def protocol(self) -> None:
    """Checks the protocol."""
    version = self.number("<B")
    if not 2 <= version <= 5:
      raise ValueError(f"protocol {version}, known are 2 to 5")

  def frame(self) -> None:
    """Checks that a frame ends inside the pickle."""
    size, left = self.number("<Q"), len(self._data) - self.position
    if size > left:
      raise ValueError(f"a frame of {size} bytes, {left} are left")

  def text(self, form: str) -> None:
    """Pushes a text whose length comes first."""
    self.push(self.take(self.number(form)).decode("utf-8"))

  def long(self) -> None:
    """Pushes a whole number of up to 255 bytes."""
    self.push(int.from_bytes(self.take(self.number("<B")), "little", signed=True))

  def tuple_of(self, count: int) -> None:
    """Pushes the tuple of the last values."""
    values = [self.pop() for _ in range(count)]
    self.push(tuple(reversed(values)))

  def put(self, index: int) -> None:
    """Remembers the last value."""
    self.push(value := self.pop())
    self._memo[index] = value

  def memoize(self) -> None:
    """Remembers the last value under the next number."""
    self.put(len(self._memo))

  def get(self, index: int) -> None:
    """Pushes a remembered value."""
    if index not in self._memo:
      raise ValueError(f"nothing is remembered under {index}")
    self.push(self._memo[index])

  def append(self, values: list[Any]) -> None:
    """Appends to the list that is last on the stack."""
    self.push(target := self.pop())
    if type(target) is not list:
      raise ValueError(f"appends to a {kind(target)}")
    target.extend(values)

  def set_items(self, values: list[Any]) -> None:
    """Puts names and values in turn into the dictionary that is last on the stack."""
    self.push(target := self.pop())
    if not isinstance(target, dict) or len(values) % 2:
      raise ValueError(f"sets {len(values)} names and values of a {kind(target)}")
    for key, value in zip(values[::2], values[1::2], strict=True):
      # A tuple that holds itself twice, and so on, would take forever to hash.
      if type(key) is not str and not (type(key) is int and abs(key) < MAX_KEY):
        raise ValueError(f"a name must be a text or a small whole number, not a {kind(key)}")
      target[key] = value

  def set_item(self) -> None:
    """Puts one name and value into a dictionary."""
    value, key = self.pop(), self.pop()
    self.set_items([key, value])

  def find_global(self, module: Any, name: Any) -> None:
    """Pushes the marker of a global; the words are compared and never imported."""
    if type(module) is not str or type(name) is not str:
      raise ValueError(f"a global named by {kind(module)} and {kind(name)}")
    if (module, name) not in GLOBALS:
      known = ", ".join(".".join(words) for words in GLOBALS)
      found = f"{module[:100]!r} {name[:100]!r}"
      raise ValueError(f"the global {found} is not allowed; allowed are {known}")
    self.push(GLOBALS[module, name])

  def stack_global(self) -> None:
    """Pushes the marker of the global whose words are last on the stack."""
    name, module = self.pop(), self.pop()
    self.find_global(module, name)

  def reduce(self) -> None:
    """Applies a marker to its arguments."""
    arguments, function = self.pop(), self.pop()
    if not isinstance(function, Function):
      raise ValueError(f"calls a {kind(function)}")
    if type(arguments) is not tuple:
      raise ValueError(f"calls {function.name} with a {kind(arguments)}")
    self.push(function.call(arguments))

  def build(self) -> None:
    """Leaves out the attributes of an ordered dictionary, where PyTorch notes versions."""
    state = self.pop()
    self.push(target := self.pop())
    if type(target) is not collections.OrderedDict or not isinstance(state, dict):
      raise ValueError(f"sets attributes of a {kind(target)}")

  def persistent(self) -> None:
    """Pushes the storage that a persistent id names."""
    found = self.pop()
    if type(found) is not tuple or len(found) != 5:
      raise ValueError(f"a persistent id must be a tuple of 5, it is a {kind(found)}")
    word, dtype, key, _, count = found
    if type(word) is not str or word != "storage" or not isinstance(dtype, np.dtype):
      raise ValueError("a persistent id must name a storage and its type")
    if type(key) is not str or key not in self._sizes:
      name = repr(key[:100]) if isinstance(key, str) else f"a {kind(key)}"
      raise ValueError(f"the file holds no storage {name}")
    if not whole(count) or count * dtype.itemsize != self._sizes[key]:
      raise ValueError(
        f"storage {key!r} of {told(count)} {dtype} must have {dtype.itemsize} bytes for each, "
        f"the file holds {self._sizes[key]}"
      )
    self.push(Storage(key, dtype, count))


_OPCODES = {op.code.encode("latin-1"): op.name for op in pickletools.opcodes}
_ACTIONS: Mapping[str, Callable[[_Machine], None]] = {
  "PROTO": _Machine.protocol,
  "FRAME": _Machine.frame,
  "MARK": _Machine.mark,
  "NONE": lambda machine: machine.push(None),
  "NEWTRUE": lambda machine: machine.push(True),
  "NEWFALSE": lambda machine: machine.push(False),
  "BININT": lambda machine: machine.push(machine.number("<i")),
  "BININT1": lambda machine: machine.push(machine.number("<B")),
  "BININT2": lambda machine: machine.push(machine.number("<H")),
  "LONG1": _Machine.long,
  "BINFLOAT": lambda machine: machine.push(machine.number(">d")),
  "BINUNICODE": lambda machine: machine.text("<I"),
  "SHORT_BINUNICODE": lambda machine: machine.text("<B"),
  "EMPTY_TUPLE": lambda machine: machine.tuple_of(0),
  "TUPLE1": lambda machine: machine.tuple_of(1),
  "TUPLE2": lambda machine: machine.tuple_of(2),
  "TUPLE3": lambda machine: machine.tuple_of(3),
  "TUPLE": lambda machine: machine.push(tuple(machine.marked())),
  "EMPTY_LIST": lambda machine: machine.push([]),
  "APPEND": lambda machine: machine.append([machine.pop()]),
  "APPENDS": lambda machine: machine.append(machine.marked()),
  "EMPTY_DICT": lambda machine: machine.push({}),
  "SETITEM": _Machine.set_item,
  "SETITEMS": lambda machine: machine.set_items(machine.marked()),
  "BINPUT": lambda machine: machine.put(machine.number("<B")),
  "LONG_BINPUT": lambda machine: machine.put(machine.number("<I")),
  "MEMOIZE": _Machine.memoize,
  "BINGET": lambda machine: machine.get(machine.number("<B")),
  "LONG_BINGET": lambda machine: machine.get(machine.number("<I")),
  "GLOBAL": lambda machine: machine.find_global(machine.line(), machine.line()),
  "STACK_GLOBAL": _Machine.stack_global,
  "REDUCE": _Machine.reduce,
  "BUILD": _Machine.build,
  "BINPERSID": _Machine.persistent,
}
"""What each opcode does; an opcode that is not here is refused."""
