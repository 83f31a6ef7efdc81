"""Globals a file of tensors may name: what each stands for, and what it refuses."""

import collections

import numpy as np
import pytest

from eagle_jax.convert.torch_values import GLOBALS, STORAGES, Storage, Tensor, kind, told, whole

FLOATS = Storage("0", np.dtype(np.float32), 12)
NO_HOOKS = collections.OrderedDict()


def view(offset=0, shape=(3, 4), strides=(4, 1), rest=(False, NO_HOOKS), storage=FLOATS):
  return GLOBALS["torch._utils", "_rebuild_tensor_v2"].call(
    (storage, offset, shape, strides, *rest)
  )


def test_every_storage_is_a_dtype_and_no_module_is_named():
  assert {GLOBALS["torch", name] for name in STORAGES} == set(STORAGES.values())
  assert not any(module in ("os", "builtins", "posix", "sys") for module, _ in GLOBALS)


def test_views_may_be_turned_and_moved():
  assert view().shape == (3, 4)
  assert view(shape=(4, 3), strides=(1, 4)).strides == (1, 4)
  assert view(offset=11, shape=(), strides=()).offset == 11
  assert view(shape=(1, 12), strides=(10**9, 1)).strides == (0, 1)
  assert view(shape=(0, 4), offset=12).shape == (0, 4)


@pytest.mark.parametrize(
  "facts",
  [
    {"offset": 1},
    {"offset": -1},
    {"strides": (5, 1)},
    {"shape": (13,), "strides": (0,)},
    {"shape": (3, True)},
    {"shape": [3, 4]},
    {"shape": (3, 4, 1)},
    {"shape": (0, 2**50), "strides": (1, 1)},
    {"rest": (1, NO_HOOKS)},
    {"rest": (False, {"hook": 1})},
    {"rest": ()},
    {"storage": "0"},
  ],
)
def test_a_view_that_its_storage_cannot_hold_is_refused(facts):
  with pytest.raises(ValueError, match="tensor"):
    view(**facts)


def test_parameters_are_their_tensors():
  call = GLOBALS["torch._utils", "_rebuild_parameter"].call
  assert isinstance(call((view(), True, NO_HOOKS)), Tensor)
  for arguments in ((view(), True), (1, True, NO_HOOKS), (view(), True, {"hook": 1})):
    with pytest.raises(ValueError, match="tensor"):
      call(arguments)


def test_sizes_and_ordered_dictionaries():
  assert GLOBALS["torch", "Size"].call(((2, 3),)) == (2, 3)
  with pytest.raises(ValueError, match="whole numbers"):
    GLOBALS["torch", "Size"].call(([2],))
  assert GLOBALS["collections", "OrderedDict"].call(()) == {}
  with pytest.raises(ValueError, match="no arguments"):
    GLOBALS["collections", "OrderedDict"].call(([("a", 1)],))


def test_messages_stay_short():
  assert told(3, 2**70) == "3, a huge int"
  assert kind([]) == "list"
  assert whole(0)
  assert not whole(True)
