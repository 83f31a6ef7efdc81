"""The engine: strict planning, exact filling, and the way back."""

import dataclasses
import json
import subprocess
import sys

import ml_dtypes
import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from eagle_jax.convert import engine
from eagle_jax.convert.engine import export, fill, plan
from eagle_jax.convert.rules import Carry, Drop, Rule, Table, conv, linear, merge
from eagle_jax.convert.source import ArraySource, Lazy, SafetensorsSource
from eagle_jax.errors import EagleError

F32 = np.dtype(np.float32)


@dataclasses.dataclass(frozen=True)
class Abstract:
  shape: tuple[int, ...]
  dtype: np.dtype = F32


def table():
  stacked = Table(
    (
      Rule("blocks.{n}.fc.weight", "blocks/{slot}/fc/kernel", linear),
      Rule("blocks.{n}.fc.bias", "blocks/{slot}/fc/bias"),
    ),
    {"0": "groups/run_0[0,0]", "1": "groups/run_0[0,1]", "2": "groups/run_0[1,0]"}
    | {"3": "groups/run_0[1,1]", "4": "rest/run_0[0]"},
  )
  plain = Table(
    (
      Rule("stem.weight", "stem/kernel", conv),
      Rule("stages.{s}.layers.{b}.scale", "stage_{s}/layers[{b}]/scale"),
      Rule("stages.{s}.layers.{b}.gamma", "stage_{s}/layers[{b}]/scale"),
      Drop("*.freqs", "computed"),
      Carry("head.*", "unused"),
    )
  )
  return merge(plain, stacked)


def abstract():
  return {
    "stem": {"kernel": Abstract((2, 2, 3, 4))},
    "stage_0": {"layers": {"scale": Abstract((2, 4))}},
    "stage_1": {"layers": {"scale": Abstract((1, 4))}},
    "blocks": {
      "groups": {"run_0": {"fc": {"kernel": Abstract((2, 2, 4, 3)), "bias": Abstract((2, 2, 3))}}},
      "rest": {"run_0": {"fc": {"kernel": Abstract((1, 4, 3)), "bias": Abstract((1, 3))}}},
    },
  }


def shapes():
  found = {"stem.weight": (4, 3, 2, 2), "head.fc.weight": (5, 4), "rope.freqs": (3,)}
  found |= {f"stages.{s}.layers.{b}.scale": (4,) for s, b in ((0, 0), (0, 1), (1, 0))}
  for n in range(5):
    found |= {f"blocks.{n}.fc.weight": (3, 4), f"blocks.{n}.fc.bias": (3,)}
  return found


def tensors(dtype=np.float32):
  rng = np.random.default_rng(0)
  return {name: rng.normal(size=shape).astype(dtype) for name, shape in shapes().items()}


def test_every_tensor_arrives_in_its_slice():
  given = tensors()
  source = ArraySource(given)
  params, carried = fill(plan(source, table(), abstract()), source)
  blocks = params["blocks"]
  kernel = blocks["groups"]["run_0"]["fc"]["kernel"]
  for n, (i, j) in enumerate(((0, 0), (0, 1), (1, 0), (1, 1))):
    np.testing.assert_array_equal(kernel[i, j], given[f"blocks.{n}.fc.weight"].T)
  np.testing.assert_array_equal(blocks["rest"]["run_0"]["fc"]["bias"][0], given["blocks.4.fc.bias"])
  np.testing.assert_array_equal(
    params["stem"]["kernel"], given["stem.weight"].transpose(2, 3, 1, 0)
  )
  np.testing.assert_array_equal(
    params["stage_0"]["layers"]["scale"][1], given["stages.0.layers.1.scale"]
  )
  assert carried.keys() == {"head.fc.weight"}
  assert list(params) == list(abstract())


def test_planning_reads_nothing():
  def fail():
    raise AssertionError("a byte was read")

  source = ArraySource({name: Lazy(shape, F32, fail) for name, shape in shapes().items()})
  made = plan(source, table(), abstract())
  assert len(made.moves) == 14
  assert made.carried == ("head.fc.weight",)
  assert made.dropped == {"rope.freqs": "computed"}


def test_dropped_tensors_are_never_read():
  given = dict(tensors()) | {"rope.freqs": Lazy((3,), F32, lambda: 1 / 0)}
  source = ArraySource(given)
  fill(plan(source, table(), abstract()), source)


def test_all_breaches_come_in_one_error():
  given = tensors()
  given["blocks.0.fc.wieght"] = given.pop("blocks.0.fc.weight")
  given["stem.weight"] = np.zeros((4, 3, 2), np.float32)
  given["blocks.1.fc.bias"] = np.zeros((7,), np.float32)
  given["blocks.9.fc.bias"] = np.zeros((3,), np.float32)
  given["stages.0.layers.1.gamma"] = np.zeros((4,), np.float32)
  given["stages.0.layers.5.scale"] = np.zeros((4,), np.float32)
  given["stages.7.layers.0.scale"] = np.zeros((4,), np.float32)
  del given["stages.1.layers.0.scale"]
  with pytest.raises(EagleError) as caught:
    plan(ArraySource(given, "the file"), table(), abstract())
  message = str(caught.value)
  for part in (
    "the file does not fit",
    "'blocks.0.fc.wieght' is known to no rule, did you mean 'blocks.0.fc.weight'?",
    "target blocks/groups/run_0/fc/kernel[0, 0] is filled by no source tensor, "
    "a rule expects 'blocks.0.fc.weight'",
    "'stem.weight': conv takes 4 axes, the shape [4, 3, 2] has 3",
    "target stem/kernel is filled by no source tensor, a rule expects 'stem.weight'",
    "'blocks.1.fc.bias' has shape [7], blocks/groups/run_0/fc/bias[0, 1] takes [3]",
    "'blocks.9.fc.bias': block '9' has no place in this model",
    "target stage_0/layers/scale[1] is filled twice, by 'stages.0.layers.1.scale' and "
    "'stages.0.layers.1.gamma'",
    "'stages.0.layers.5.scale' goes to stage_0/layers/scale[5], the stack there has shape [2]",
    "'stages.7.layers.0.scale' goes to 'stage_7/layers/scale', which is no parameter, "
    "did you mean 'stage_1/layers/scale'?",
    "target stage_1/layers/scale is filled by no source tensor, a rule expects "
    "'stages.1.layers.0.scale'",
  ):
    assert part in message, part


def test_a_transposed_kernel_is_told_with_both_shapes():
  given = tensors() | {"blocks.0.fc.weight": np.zeros((4, 3), np.float32)}
  with pytest.raises(EagleError, match=r"has shape \[4, 3\], by 'linear' \[3, 4\], .* \[4, 3\]"):
    plan(ArraySource(given), table(), abstract())


def test_a_parameter_without_rule_is_told():
  with pytest.raises(EagleError, match="target extra is filled by no source tensor and named in"):
    plan(ArraySource(tensors()), table(), abstract() | {"extra": Abstract((1,))})


def test_a_leaf_is_filled_whole_or_in_slices():
  mixed = Table((Rule("whole", "w"), Rule("part.{n}", "w[{n}]")))
  given = {"whole": np.zeros((2, 3), np.float32), "part.0": np.zeros(3, np.float32)}
  with pytest.raises(EagleError, match="both whole and in slices"):
    plan(ArraySource(given), mixed, {"w": Abstract((2, 3))})


@pytest.mark.parametrize("dtype", [np.float16, "float16", np.dtype(np.float16)])
def test_one_dtype_for_all(dtype):
  source = ArraySource(tensors())
  params, carried = fill(plan(source, table(), abstract()), source, dtype)
  assert {a.dtype for a in engine.flatten(params).values()} == {np.dtype(np.float16)}
  assert carried["head.fc.weight"].dtype == F32


def test_a_dtype_per_path_and_the_abstract_one_by_default():
  source = ArraySource(tensors(ml_dtypes.bfloat16))
  made = plan(source, table(), abstract())
  params, _ = fill(made, source)
  assert params["stem"]["kernel"].dtype == F32
  params, _ = fill(made, source, lambda path: "float16" if path.startswith("stem") else np.float32)
  assert params["stem"]["kernel"].dtype == np.float16
  assert params["stage_0"]["layers"]["scale"].dtype == F32


def test_a_source_must_keep_its_word():
  lying = dict(tensors()) | {
    "stem.weight": Lazy((4, 3, 2, 2), F32, lambda: np.zeros((1,), np.float32))
  }
  source = ArraySource(lying)
  with pytest.raises(EagleError, match="was announced as"):
    fill(plan(source, table(), abstract()), source)


def same_bytes(given, got):
  return given.dtype == got.dtype and given.shape == got.shape and given.tobytes() == got.tobytes()


@pytest.mark.parametrize("dtype", [np.float32, ml_dtypes.bfloat16, np.float16])
def test_import_then_export_gives_the_same_bytes(tmp_path, dtype):
  given = tensors(dtype)
  save_file(given, tmp_path / "in.safetensors")
  source = SafetensorsSource(tmp_path / "in.safetensors")
  made = plan(source, table(), abstract())
  exported = dict(export(made, *fill(made, source)))
  save_file(exported, tmp_path / "out.safetensors")
  got = load_file(tmp_path / "out.safetensors")
  assert got.keys() == given.keys() - {"rope.freqs"}
  for name, array in got.items():
    assert same_bytes(given[name], array), name


def test_a_table_exports_without_a_plan():
  given = tensors()
  source = ArraySource(given)
  params, carried = fill(plan(source, table(), abstract()), source)
  exported = dict(export(table(), params, carried))
  assert exported.keys() == given.keys() - {"rope.freqs"}
  for name, array in exported.items():
    assert same_bytes(given[name], array), name


def test_export_wants_every_parameter_and_every_slice():
  source = ArraySource(tensors())
  made = plan(source, table(), abstract())
  params, _ = fill(made, source)
  with pytest.raises(EagleError, match="extra"):
    list(export(made, params | {"extra": np.zeros(1)}))
  with pytest.raises(EagleError, match="extra"):
    list(export(table(), params | {"extra": np.zeros(1)}))
  with pytest.raises(EagleError, match="stem/kernel"):
    list(export(made, {name: tree for name, tree in params.items() if name != "stem"}))
  params["blocks"]["groups"]["run_0"]["fc"]["bias"] = np.zeros((3, 2, 3), np.float32)
  with pytest.raises(EagleError, match="run_0/fc/bias"):
    list(export(table(), params))


def test_paths_flatten_and_nest_back():
  tree = {"a": {"b": 1, "c": {"d": 2}}, "e": 3}
  assert engine.flatten(tree) == {"a/b": 1, "a/c/d": 2, "e": 3}
  assert engine.unflatten(engine.flatten(tree)) == tree


def test_converters_need_neither_jax_nor_flax():
  code = "import sys, json, eagle_jax.convert.engine; print(json.dumps(sorted(sys.modules)))"
  out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
  assert not {"jax", "flax", "torch"} & set(json.loads(out.stdout))
