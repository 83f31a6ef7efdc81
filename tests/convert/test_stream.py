"""Conversions carried out slice by slice: layouts, threads, what an interruption leaves."""

import threading

import jax
import ml_dtypes
import numpy as np
import pytest

from eagle_jax.convert import engine, stream
from eagle_jax.convert.rules import Carry, Rule, Table, conv, linear, same
from eagle_jax.convert.source import ArraySource
from eagle_jax.errors import EagleError

BF16 = np.dtype(ml_dtypes.bfloat16)
TABLE = Table(
  (
    Rule("layers.{n}.weight", "layers[{n}]/kernel", linear),
    Rule("layers.{n}.bias", "layers[{n}]/bias", same),
    Rule("patch.weight", "patch/kernel", conv),
    Carry("head", "not used"),
  )
)


def tensors():
  rng = np.random.default_rng(0)
  named = {f"layers.{n}.weight": (4, 6) for n in range(3)}
  named |= {f"layers.{n}.bias": (4,) for n in range(3)}
  named |= {"patch.weight": (5, 3, 2, 2), "head": (7,)}
  return {name: rng.normal(size=shape).astype(BF16) for name, shape in named.items()}


def planned(arrays=None):
  leaf = jax.ShapeDtypeStruct
  abstract = {
    "layers": {"kernel": leaf((3, 6, 4), np.float32), "bias": leaf((3, 4), np.float32)},
    "patch": {"kernel": leaf((2, 2, 3, 5), np.float32)},
  }
  source = ArraySource(arrays or tensors())
  return engine.plan(source, TABLE, abstract), source


class Sink:
  """Holds slices in memory."""

  def __init__(self):
    self.held = {}
    self.threads = set()

  def has(self, path, index):
    return (path, tuple(index)) in self.held

  def put(self, path, index, array):
    self.threads.add(threading.get_ident())
    self.held[path, tuple(index)] = np.array(array)


def test_layouts_keep_the_dtype_and_turn_matrices_on_disk_only():
  plan, _ = planned()
  found = stream.layouts_of(plan)
  assert {path: (x.dtype, x.depth, x.order) for path, x in found.items()} == {
    "layers/kernel": (BF16, 1, "F"),
    "layers/bias": (BF16, 1, "C"),
    "patch/kernel": (BF16, 0, "C"),
  }
  assert {x.dtype for x in stream.layouts_of(plan, "float32").values()} == {np.dtype(np.float32)}


def test_slices_of_several_dtypes_need_a_choice():
  mixed = tensors() | {"layers.1.bias": np.zeros(4, np.float32)}
  plan, _ = planned(mixed)
  with pytest.raises(EagleError, match="layers/bias has slices of several dtypes, bfloat16, float"):
    stream.layouts_of(plan)
  stream.layouts_of(plan, "float32")


@pytest.mark.parametrize("dtype", [None, "float32"])
def test_every_slice_arrives_as_fill_would_have_put_it(dtype):
  plan, source = planned()
  layouts = stream.layouts_of(plan, dtype)
  sink, seen = Sink(), []
  carried = stream.run(
    plan, source, sink, layouts=layouts, on_done=lambda done, total: seen.append((done, total))
  )
  filled, kept = engine.fill(plan, source, dtype or BF16)
  for path, array in engine.flatten(filled).items():
    for index in np.ndindex(*array.shape[: layouts[path].depth]):
      got = sink.held.pop((path, index))
      assert got.dtype == array.dtype
      np.testing.assert_array_equal(got, array[index])
  assert not sink.held
  assert seen == [(done, 7) for done in range(1, 8)]
  assert carried.keys() == kept.keys() == {"head"}


def test_what_is_there_is_not_read_again():
  plan, source = planned()
  sink = Sink()
  layouts = stream.layouts_of(plan)
  stream.run(plan, source, sink, layouts=layouts)
  del sink.held["layers/bias", (1,)]
  only = ArraySource({n: x for n, x in tensors().items() if n in ("layers.1.bias", "head")})
  stream.run(plan, only, sink, layouts=layouts)
  assert len(sink.held) == 7


def test_a_tensor_that_is_not_what_was_announced_stops_it():
  plan, _ = planned()
  other = ArraySource(tensors() | {"patch.weight": np.zeros((5, 3, 2, 1), BF16)})
  with pytest.raises(EagleError, match=r"'patch\.weight' was announced as"):
    stream.run(plan, other, Sink(), layouts=stream.layouts_of(plan))


def test_the_identity_tells_sources_plans_and_dtypes_apart():
  plan, source = planned()
  kept, cast = stream.layouts_of(plan), stream.layouts_of(plan, "float32")
  told = {
    stream.identity(plan, source, kept),
    stream.identity(plan, source, cast),
    stream.identity(plan, ArraySource(tensors(), "elsewhere"), kept),
  }
  assert len(told) == 3
  assert stream.identity(*planned(), kept) in told
