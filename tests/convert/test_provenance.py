"""The record of a conversion: what came from where, by which rule, and what was left."""

import json

import jax
import numpy as np

from eagle_jax.convert import engine, provenance, stream
from eagle_jax.convert.rules import Carry, Drop, Rule, Table, linear
from eagle_jax.convert.source import ArraySource


def test_every_tensor_is_accounted_for():
  table = Table((Rule("w.{n}", "w[{n}]", linear), Carry("kept", "why"), Drop("left", "no use")))
  names = ("w.0", "w.1", "kept", "left")
  source = ArraySource({name: np.zeros((2, 3), np.float16) for name in names}, "a file")
  plan = engine.plan(source, table, {"w": jax.ShapeDtypeStruct((2, 3, 2), np.float32)})
  layouts = stream.layouts_of(plan, "float32")
  told = json.loads(provenance.record(plan, source, layouts=layouts, notes={"what": "test"}))
  assert told["source"] == "a file"
  assert told["what"] == "test"
  assert told["tensors"]["w.1"] == {
    "to": "w[1]",
    "transform": "linear",
    "dtype": "float16",
    "shape": [2, 3],
  }
  assert told["parameters"] == {"w": "float32"}
  assert {*told["tensors"], *told["carried"], *told["dropped"]} == set(names)
  assert told["dropped"] == {"left": "no use"}
  assert told["versions"]["jax"] == jax.__version__
