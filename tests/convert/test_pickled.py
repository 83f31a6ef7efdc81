"""Pickles as hostile as we could make them: each is refused, and none runs.

Tables of bodies, which stand between the protocol and the end of a pickle. `test_torch_file`
has the hostile archives around them.
"""

import contextlib
import pickle
import re
import struct
import sys
import tracemalloc

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from eagle_jax.convert import pickled
from eagle_jax.convert.torch_file import TorchSource
from eagle_jax.convert.torch_values import Tensor
from eagle_jax.errors import EagleError
from tests.convert.torch_zip import (
  ORDERED,
  PARAMETER,
  archived,
  around,
  number,
  packed,
  rebuilt,
  storage,
  text,
)

SIZES = {"0": 8}
TOUCH = b"(" + text("touch canary") + b"tR"
CANARY = b"(" + text("canary") + b"tR"
COPY = b"(" + text("x.bin") + text("canary") + b"tR"
INNER = b"\x80\x02cos\nmkdir\n" + CANARY + b"."
CODE = b"(" + text("__import__('os').mkdir('canary')") + b"tR"
GETATTR = b"cbuiltins\ngetattr\n"
IMPORT = b"cbuiltins\n__import__\n(" + text("os") + b"tR"
FLOATS = storage("0", 2)
DEEP = 100_000

HARMFUL = {
  "os.system": b"cos\nsystem\n" + TOUCH,
  "posix.system": b"cposix\nsystem\n" + TOUCH,
  "os.mkdir": b"cos\nmkdir\n" + CANARY,
  "subprocess": b"csubprocess\ngetoutput\n" + TOUCH,
  "eval": b"cbuiltins\neval\n" + CODE,
  "exec": b"cbuiltins\nexec\n" + CODE,
  "eval by its old name": b"c__builtin__\neval\n" + CODE,
  "getattr of an import": GETATTR + b"(" + IMPORT + text("system") + b"tR" + TOUCH,
  "getattr chain": GETATTR
  + (b"(" + GETATTR + b"(cos\npath\n" + text("os") + b"tR" + text("system") + b"tR" + TOUCH),
  "methodcaller": b"coperator\nmethodcaller\n("
  + text("mkdir")
  + text("canary")
  + b"tR("
  + (IMPORT + b"tR"),
  "map": b"cbuiltins\nlist\n(cbuiltins\nmap\n(cos\nsystem\n]" + text("touch canary") + b"atRtR",
  "nested reduce": ORDERED + b"(cos\nsystem\n" + TOUCH + b"tR",
  "in a dictionary": b"}" + text("state_dict") + b"cos\nsystem\n" + TOUCH + b"s",
  "in the state of BUILD": ORDERED + b")R}" + text("a") + b"cos\nsystem\n" + TOUCH + b"sb",
  "BUILD with __setstate__": b"cfunctools\npartial\n(cos\nmkdir\ntR(cos\nmkdir\n("
  + text("canary")
  + b"t}Ntb)R",
  "NEWOBJ": b"cfunctools\npartial\n(cos\nmkdir\n" + text("canary") + b"t\x81)R",
  "NEWOBJ_EX": b"cfunctools\npartial\n(cos\nmkdir\n" + text("canary") + b"t}\x92)R",
  "INST": b"(" + text("touch canary") + b"ios\nsystem\n",
  "OBJ": b"(cos\nmkdir\n" + text("canary") + b"o",
  "words on the stack": b"\x8c\x02os\x8c\x06system\x93" + TOUCH,
  "words from the memo": b"(\x8c\x02os\x94\x8c\x06system\x94h\x00h\x01\x93" + TOUCH + b"t",
  "dots": b"\x80\x04\x8c\x07pathlib\x8c\x09os.system\x93" + TOUCH,
  "more dots": b"\x80\x04\x8c\x02os\x8c\x0epath.os.system\x93" + TOUCH,
  "a method by dots": b"\x80\x04\x8c\x07pathlib\x8c\x0aPath.touch\x93"
  + (b"(cpathlib\nPath\n" + CANARY + b"tR"),
  "posix.mkdir": b"cposix\nmkdir\n" + CANARY,
  "os.makedirs": b"cos\nmakedirs\n" + CANARY,
  "os.mknod": b"cos\nmknod\n" + CANARY,
  "os.symlink": b"cos\nsymlink\n" + COPY,
  "os.link": b"cos\nlink\n" + COPY,
  "shutil": b"cshutil\ncopyfile\n" + COPY,
  "a list of words": b"csubprocess\ncheck_output\n(]"
  + (text("touch") + b"a" + text("canary") + b"atR"),
  "compiled": b"cbuiltins\nexec\n(cbuiltins\ncompile\n"
  + (CODE[:-2] + text("x") + text("exec") + b"tRtR"),
  "timeit": b"ctimeit\ntimeit\n" + CODE,
  "a pickle in a pickle": b"cpickle\nloads\n(C" + (bytes([len(INNER)]) + INNER + b"tR"),
  "reduce of functools": b"cfunctools\nreduce\n(cshutil\ncopyfile\n" + COPY[:-1] + b"tR",
  "importlib": GETATTR
  + (b"(cimportlib\nimport_module\n(" + text("os") + b"tR" + text("mkdir") + b"tR" + CANARY),
  "attrgetter": b"coperator\nattrgetter\n(" + text("mkdir") + b"tR(" + IMPORT + b"tR" + CANARY,
}
"""What runs when it is unpickled, and leaves a file 'canary' behind."""

GLOBALS = {
  "dots in the name": b"ctorch\n_utils._rebuild_tensor_v2\n",
  "dots up to another module": b"\x8c\x0ctorch._utils\x8c\x09os.system\x93",
  "dots on an allowed name": b"ccollections\nOrderedDict.fromkeys\n",
  "module and name moved": b"c\ntorch.Size\n",
  "the same name elsewhere": b"cbuiltins\nSize\n",
  "another case": b"cTorch\nSize\n",
  "a quantised storage": b"ctorch\nQInt8Storage\n",
  "an untyped storage": b"ctorch.storage\nUntypedStorage\n",
  "the loader itself": b"ctorch\nload\n",
  "a jit loader": b"ctorch.jit\nload\n",
  "another rebuild": b"ctorch._utils\n_rebuild_device_tensor_from_numpy\n",
  "numpy": b"cnumpy.core.multiarray\n_reconstruct\n",
  "codecs": b"c_codecs\nencode\n",
  "copyreg": b"ccopyreg\n_reconstructor\n",
  "extension registry": b"ccopyreg\nadd_extension\n",
  "no words": b"c\n\n",
}
"""Globals that no file of tensors needs."""

OPCODES = {
  "NEWOBJ": ORDERED + b")\x81",
  "NEWOBJ_EX": ORDERED + b")}\x92",
  "INST": b"(icollections\nOrderedDict\n",
  "OBJ": b"(" + ORDERED + b"o",
  "EXT1": b"\x82\x01",
  "EXT2": b"\x83\x01\x00",
  "EXT4": b"\x84\x01\x00\x00\x00",
  "PERSID": b"P0\n",
  "BINBYTES8": b"\x8e" + b"\xff" * 7 + b"\x7f",
  "BINUNICODE8": b"\x8d" + b"\xff" * 7 + b"\x7f",
  "BYTEARRAY8": b"\x96" + b"\xff" * 7 + b"\x7f",
  "NEXT_BUFFER": b"\x97",
  "READONLY_BUFFER": b"N\x98",
  "LONG4": b"\x8b\xff\xff\xff\x7f",
  "LONG": b"L" + b"9" * 100_000 + b"L\n",
  "INT": b"I1\n",
  "FLOAT": b"F1e999\n",
  "STRING": b"S'\\q'\n",
  "UNICODE": b"V\\ud800\n",
  "BINSTRING": b"T\xff\xff\xff\xff",
  "BINBYTES": b"B\xff\xff\xff\xff",
  "DUP": b"N2",
  "POP": b"N0",
  "POP_MARK": b"(1",
  "EMPTY_SET": b"\x8f",
  "FROZENSET": b"(\x91",
  "DICT": b"(d",
  "LIST": b"(l",
}
"""Opcodes that no file of tensors needs, whether their arguments are sound or not."""

MISUSES = {
  "a storage is called": (b"ctorch\nFloatStorage\n)R", "REDUCE: calls a Float32DType"),
  "a text is called": (text("os.system") + b")R", "REDUCE: calls a str"),
  "a list of arguments": (ORDERED + b"]R", "OrderedDict with a list"),
  "ordered items": (ORDERED + b"(]tR", "no arguments"),
  "a size of text": (b"ctorch\nSize\n(" + text("a") + b"tR", "whole numbers"),
  "a size of many": (b"ctorch\nSize\n((" + b"N" * 99 + b"ttR", "whole numbers"),
  "a parameter of nothing": (PARAMETER + b"(N\x88NtR", "takes a tensor"),
  "BUILD of a list": (b"]}b", "attributes of a list"),
  "BUILD of a dictionary": (b"}}b", "attributes of a dict"),
  "BUILD of a tensor": (rebuilt(FLOATS) + b"}b", "attributes of a Tensor"),
  "BUILD of a global": (ORDERED + b"}b", "attributes of a Function"),
  "BUILD with two states": (ORDERED + b")R}}\x86b", "attributes of a OrderedDict"),
  "append to a dictionary": (b"}Na", "appends to a dict"),
  "item of a list": (b"]NNs", "of a list"),
  "odd items": (b"}(NNNu", "sets 3 names"),
  "numbers as a global": (b"K\x01K\x02\x93", "named by int and int"),
  "a name too large": (b"}" + number(2**61) + b"Ns", "small whole number"),
  "a list that holds itself as a name": (b"}]q\x00h\x00aNs", "not a list"),
  "doubled tuples as a name": (b"}N" + b"q\x00h\x00\x86" * DEEP + b"Ns", "not a tuple"),
  "doubled tuples as a count": (
    b"("
    + text("storage")
    + b"ctorch\nFloatStorage\n"
    + text("0")
    + b"NN"
    + (b"q\x00h\x00\x86" * DEEP + b"tQ"),
    "of a huge tuple",
  ),
  "nothing remembered": (b"h\x07", "remembered under 7"),
  "nothing remembered far out": (b"j\xff\xff\xff\xff", "remembered under 4294967295"),
  "no mark": (b"NNt", "there is no mark"),
  "an open mark": (b"(N", "left on the stack"),
  "two values": (b"NN", "left on the stack"),
  "no value": (b"", "stack is empty"),
  "too few for a tuple": (b"N\x86", "stack is empty"),
  "values under a mark": (b"N(R", "stack is empty"),
  "a second pickle": (b"}.\x80\x02cos\nsystem\n" + TOUCH, "bytes follow the end"),
  "a frame beyond the end": (b"\x95" + struct.pack("<Q", 2**40), "a frame of"),
  "protocol 9": (b"\x80\x09", "protocol 9"),
  "no opcode": (b"\xff", "no opcode 0xff"),
  "a text beyond the end": (b"X\xff\xff\xff\xffabc", "bytes are left|are left"),
  "a number beyond the end": (b"\x8a\xff\x00", "are left"),
  "a text that is none": (b"\x8c\x01\xff", "utf-8"),
  "a global without end": (b"cos", "does not end"),
  "a global beyond ASCII": (b"c\xff\nx\n", "ascii"),
  "steps without end": (b"N" * 1_100_000, "more than 1000000 opcodes"),
}
"""Allowed opcodes, used as no file of tensors does."""

PERSISTENT = {
  "a text": (text("storage") + b"Q", "tuple of 5"),
  "nothing": (b"NQ", "tuple of 5"),
  "a short tuple": (b"(" + text("storage") + b"tQ", "tuple of 5"),
  "another word": (b"(" + text("module") + b"NNNNtQ", "name a storage"),
  "a type as text": (b"(" + text("storage") + text("FloatStorage") + b"NNNtQ", "its type"),
  "a function as type": (b"(" + text("storage") + ORDERED + b"NNNtQ", "its type"),
  "an unknown key": (storage("1", 2), "no storage '1'"),
  "a path as key": (storage("../../etc/passwd", 2), "no storage"),
  "more than there are": (storage("0", 3), "the file holds 8"),
  "fewer than there are": (storage("0", 1), "the file holds 8"),
  "negative": (storage("0", -2), "huge int"),
  "past 64 bits": (storage("0", 2**64 + 2), "huge int"),
  "another type": (storage("0", 2, "HalfStorage"), "2 bytes for each"),
  "a truth value": (storage("0", 2, "ByteStorage").replace(number(2), b"\x88"), "huge bool"),
}
"""Storages that are not what the file holds."""

VIEWS = {
  "negative offset": ({"offset": -1}, "from 0"),
  "offset beyond": ({"offset": 1}, "beyond storage '0' of 2"),
  "offset far beyond": ({"offset": 2**64}, "beyond"),
  "negative length": ({"shape": (-1,)}, "from 0"),
  "two negative lengths": ({"shape": (-1, -2), "strides": (1, 1)}, "from 0"),
  "negative stride": ({"offset": 1, "strides": (-1,)}, "from 0"),
  "stride beyond": ({"strides": (2,)}, "beyond"),
  "length beyond": ({"shape": (3,)}, "beyond"),
  "a product that overflows": ({"shape": (2**32, 2**32), "strides": (0, 0)}, "beyond"),
  "one element repeated": ({"shape": (2**40,), "strides": (0,)}, "beyond"),
  "huge numbers": ({"shape": (2**2000,), "strides": (2**2000,)}, "huge int"),
  "empty and huge": ({"shape": (0, 2**62, 2**62), "strides": (1, 1, 1)}, "beyond"),
  "empty beyond": ({"shape": (0,), "offset": 3}, "beyond"),
  "axes without strides": ({"shape": (1, 2)}, "2 axes and 1 strides"),
  "too many axes": ({"shape": (1,) * 33, "strides": (1,) * 33}, "whole numbers"),
  "hooks": ({"rest": b"\x89}" + text("a") + b"Ns"}, "no hooks"),
  "hooks of another kind": ({"rest": b"\x89N]"}, "no metadata"),
  "to be negated": ({"rest": b"\x89N}" + text("neg") + b"\x88s"}, "no metadata"),
  "trained by text": ({"rest": text("yes") + b"N"}, "no hooks"),
  "too many arguments": ({"rest": b"\x89NNN"}, "5 or 6 arguments"),
}
"""Tensors that are no view of their storage, and those that would be read wrongly."""


ALLOWED = b"(N\x88\x89K\x01]}) \x85\x86\x87taesuRbQ\x94h\x00q\x00"
PIECES = [bytes([code]) for code in ALLOWED] + [
  *(FLOATS, rebuilt(FLOATS), ORDERED, PARAMETER, text("a"), number(7), packed((2,)), b"h\x00"),
  *(body for body, _ in PERSISTENT.values()),
  *(b"cos\nsystem\n", b"\x93", b"\x81", b"q\x01", b"h\x01", b"."),
]


def whole_pickle(body):
  return b"\x80\x02" + body + b"."


def interpret(data):
  return pickled.interpret(data, SIZES, "x.bin: data.pkl")


def refused(body):
  """Returns the message that a body is refused with."""
  with pytest.raises(EagleError) as found:
    interpret(whole_pickle(body))
  assert len(str(found.value)) < 1500
  return str(found.value)


@pytest.mark.parametrize("name", HARMFUL)
def test_what_would_run_is_refused_and_does_not(name, tmp_path, monkeypatch):
  monkeypatch.chdir(tmp_path)
  data = whole_pickle(HARMFUL[name])
  path = tmp_path / "x.bin"
  path.write_bytes(archived(around(data, {"0": b"12345678"})))
  with pytest.raises(EagleError, match=r"data\.pkl is refused at byte \d+, opcode [A-Z_]+: "):
    TorchSource(path)
  assert [entry.name for entry in tmp_path.iterdir()] == ["x.bin"]
  # Unpickled it does run, or this test would show nothing.
  with contextlib.suppress(Exception):
    pickle.loads(data)
  assert (tmp_path / "canary").exists()


@pytest.mark.parametrize("name", GLOBALS)
def test_globals_that_tensors_do_not_need_are_refused(name):
  message = refused(GLOBALS[name])
  assert "is not allowed; allowed are collections.OrderedDict, torch.Size" in message
  assert "GLOBAL" in message


@pytest.mark.parametrize("name", OPCODES)
def test_opcodes_that_tensors_do_not_need_are_refused(name):
  assert f"opcode {name}: not among those" in refused(OPCODES[name])


@pytest.mark.parametrize("name", MISUSES)
def test_allowed_opcodes_do_nothing_else(name):
  body, message = MISUSES[name]
  assert re.search(message, refused(body))


@pytest.mark.parametrize("name", PERSISTENT)
def test_a_storage_is_what_the_file_holds(name):
  body, message = PERSISTENT[name]
  assert "opcode BINPERSID: " in refused(body)
  assert message in refused(body)


@pytest.mark.parametrize("name", VIEWS)
def test_a_tensor_lies_inside_its_storage(name):
  facts, message = VIEWS[name]
  assert "opcode REDUCE: " in refused(rebuilt(FLOATS, **facts))
  assert message in refused(rebuilt(FLOATS, **facts))


def test_the_message_gives_file_byte_opcode_and_global():
  body = b"}" + text("a") + b"cos\nsystem\n"
  assert refused(body).startswith(
    "x.bin: data.pkl is refused at byte 9, opcode GLOBAL: the global 'os' 'system' is not allowed"
  )


def test_a_pickle_that_is_cut_off_anywhere_is_refused():
  data = whole_pickle(rebuilt(FLOATS))
  assert isinstance(interpret(data), Tensor)
  for length in range(len(data)):
    with pytest.raises(EagleError, match=r"refused at byte \d+"):
      interpret(data[:length])


@pytest.mark.parametrize(
  "body",
  [
    b"N" + b"q\x00h\x00\x86" * DEEP,
    b"]" * DEEP + b"a" * (DEEP - 1),
    b"}K\x00" * DEEP + b"}" + b"s" * DEEP,
    ORDERED + b"q\x00" + b")RK\x00h\x00" * DEEP + b")R" + b"s" * DEEP,
    b"N" + b"r\xff\xff\xff\xff" * DEEP,
    b"(" * DEEP + b"t" * DEEP,
    b"]q\x00" + b"h\x00a" * DEEP,
  ],
  ids=["doubled tuples", "lists", "dictionaries", "ordered", "memo", "marks", "itself"],
)
def test_deep_values_take_little_memory_and_no_recursion(body):
  tracemalloc.start()
  interpret(whole_pickle(body))
  peak = tracemalloc.get_traced_memory()[1]
  tracemalloc.stop()
  assert peak < 100 * DEEP * 8


def test_values_beside_tensors_are_read():
  body = b"}(" + text("a") + b"(K\x01M\x00\x01J\xff\xff\xff\xff\x8a\x01\x80t" + text("b")
  body += b"](N\x88\x89G" + struct.pack(">d", 2.5) + b"e" + text("c") + b"}K\x07\x8c\x01xsu"
  found = {"a": (1, 256, -1, -128), "b": [None, True, False, 2.5], "c": {7: "x"}}
  assert interpret(whole_pickle(body)) == found == pickle.loads(whole_pickle(body))


@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
def test_plain_values_of_every_protocol_are_those_that_pickle_gives(protocol):
  again = "again"
  value = {"a": [again, again, (1, 2, 3, 4), (), 2**40, -(2**63)], "b": {"c": 1.5, "": None}}
  assert interpret(pickle.dumps(value, protocol)) == value


def test_an_ordered_dictionary_keeps_its_order_and_loses_its_attributes():
  body = ORDERED + b")R(" + text("b") + b"N" + text("a") + b"Nu}" + text("_metadata") + b"}sb"
  found = interpret(whole_pickle(body))
  assert list(found) == ["b", "a"]
  assert not vars(found)


def test_a_tensor_is_a_view_with_its_steps():
  shape = b"ctorch\nSize\n(" + packed((1, 2)) + b"tR"
  body = rebuilt(FLOATS, shape=(1, 2), strides=(2**70, 1)).replace(packed((1, 2)), shape)
  tensor = interpret(whole_pickle(PARAMETER + b"(" + body + b"\x88" + ORDERED + b")RtR"))
  assert (tensor.storage.key, tensor.storage.count, tensor.offset) == ("0", 2, 0)
  assert (tensor.shape, tensor.strides) == ((1, 2), (0, 1))


@settings(max_examples=300, deadline=None)
@given(st.lists(st.sampled_from(PIECES), max_size=40))
def test_any_mixture_of_opcodes_gives_a_value_or_a_refusal(pieces):
  loaded = set(sys.modules)
  with contextlib.suppress(EagleError):
    interpret(whole_pickle(b"".join(pieces)))
  assert set(sys.modules) == loaded
