"""Checkpoints of both kinds against each other: what is said of each tensor, and of the answers."""

import dataclasses

import ml_dtypes
import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from eagle_jax import checkpoint, config
from eagle_jax.convert import engine
from eagle_jax.errors import EagleError
from eagle_jax.interchange import compare, incoming, outgoing
from eagle_jax.model import eagle as eagle_lib

MODEL = config.Model(
  experts=("pix2struct@demo",), language="demo", image_size=64, grid_side=4, projector="linear"
)
EXPERIMENT = config.Experiment(name="test", model=MODEL)


@pytest.fixture(scope="module")
def ours(tmp_path_factory):
  """A checkpoint of the whole, random and small."""
  folder = tmp_path_factory.mktemp("ours") / "made"
  leaves = engine.flatten(eagle_lib.abstract_params(eagle_lib.build(MODEL)))
  rng = np.random.default_rng(0)
  params = {p: rng.normal(0, 0.05, leaf.shape).astype(np.float32) for p, leaf in leaves.items()}
  checkpoint.save_params(str(folder), params, {"config": dataclasses.asdict(EXPERIMENT)})
  return str(folder)


@pytest.fixture(scope="module")
def theirs(ours, tmp_path_factory):
  """The same, exported."""
  folder = tmp_path_factory.mktemp("theirs") / "back"
  outgoing.export(ours, str(folder), what="whole", experiment=EXPERIMENT)
  return str(folder)


def found(first, second):
  sides = [compare.named(path, "whole", None) for path in (first, second)]
  return list(compare.tensors(*sides))


def test_an_export_is_the_same_under_both_readings(ours, theirs):
  for pair in ((ours, theirs), (theirs, ours), (ours, ours), (theirs, theirs)):
    assert {finding.verdict for finding in found(*pair)} == {compare.SAME}


def test_every_difference_is_told(theirs, tmp_path):
  tensors = load_file(f"{theirs}/model.safetensors")
  kept, cast, moved, turned, gone = list(tensors)[:5]
  tensors[cast] = tensors[cast].astype(np.float64)
  tensors[moved] = tensors[moved] + np.float32(0.5)
  tensors[turned] = tensors[turned].reshape(1, *tensors[turned].shape)
  del tensors[gone]
  tensors["more"] = np.zeros(1, np.float32)
  save_file(tensors, tmp_path / "other.safetensors")
  told = {f.name: f for f in found(theirs, str(tmp_path / "other.safetensors"))}
  assert told[kept].verdict == compare.SAME
  assert told[cast].verdict == compare.VALUES
  assert told[moved].verdict == compare.DIFFERENT
  assert "at most 0.5" in told[moved].detail
  assert "shapes" in told[turned].detail
  assert told[gone].verdict == compare.FIRST_ONLY
  assert told["more"].verdict == compare.SECOND_ONLY


def test_a_lossy_cast_is_a_difference(theirs, tmp_path):
  tensors = load_file(f"{theirs}/model.safetensors")
  save_file(
    {n: x.astype(ml_dtypes.bfloat16) for n, x in tensors.items()}, tmp_path / "model.safetensors"
  )
  assert compare.DIFFERENT in {f.verdict for f in found(theirs, str(tmp_path))}


def test_both_readings_answer_alike(ours, theirs):
  one, other = compare.logits(ours, None), compare.logits(theirs, None)
  assert one.shape == (1, 32, 512)
  assert np.std(one) > 0
  assert compare.distance(one, other) == 0
  with pytest.raises(EagleError, match="must have one shape"):
    compare.distance(one, other[:, :3])


def test_a_checkpoint_that_says_nothing_needs_a_config(tmp_path):
  checkpoint.save_params(str(tmp_path / "x"), {"a": np.zeros(1, np.float32)}, {})
  with pytest.raises(EagleError, match="says no config"):
    compare.named(str(tmp_path / "x"), "whole", None)


def test_foreign_weights_need_no_model_to_be_compared(theirs, monkeypatch):
  monkeypatch.setattr(incoming, "plan", lambda *_: pytest.fail("planned"))
  assert found(theirs, theirs)
