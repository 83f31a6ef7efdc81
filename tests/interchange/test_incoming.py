"""Whole conversions: planned from names alone, saved with their story, resumed."""

import dataclasses
import json
import os

import numpy as np
import pytest
from safetensors.numpy import save_file

from eagle_jax import checkpoint, config
from eagle_jax.checkpoint import manifest
from eagle_jax.convert import engine, provenance
from eagle_jax.errors import EagleError
from eagle_jax.interchange import incoming, parts
from eagle_jax.model import eagle as eagle_lib
from tests.convert import torch_zip

MODEL = config.Model(experts=("clip@demo",), language="demo", image_size=64, grid_side=4)
EXPERIMENT = config.Experiment(name="test", model=MODEL)


def projector():
  part = parts.part(eagle_lib.build(MODEL), "projector")
  leaves = engine.flatten(part.targets(part.schemes[0])[0])
  rng = np.random.default_rng(0)
  params = {path: rng.normal(size=leaf.shape).astype(np.float32) for path, leaf in leaves.items()}
  return dict(engine.export(part.table(part.schemes[0]), params))


def test_a_conversion_leaves_its_story_and_a_manifest(tmp_path):
  save_file(projector(), tmp_path / "model.safetensors")
  planned = incoming.plan(str(tmp_path), "projector", EXPERIMENT)
  incoming.save(planned, str(tmp_path / "made"))
  told = json.loads((tmp_path / "made" / provenance.FILE).read_text())
  assert set(told["tensors"]) == set(projector())
  assert told["scheme"] == "eagle"
  assert checkpoint.read_meta(str(tmp_path / "made"))["what"] == "projector"
  assert manifest.check(tmp_path / "made", contents=True) >= len(projector())


def test_upstreams_mm_projector_bin_is_read(tmp_path):
  state = {name: torch_zip.whole(array) for name, array in projector().items()}
  file = torch_zip.save(state, tmp_path / "mm_projector.bin")
  incoming.save(incoming.plan(str(file), "projector", EXPERIMENT), str(tmp_path / "made"))
  got = checkpoint.open_params(str(tmp_path / "made"))
  turned = projector()["model.mm_projector.0.weight"].T
  np.testing.assert_array_equal(np.asarray(got["projector/layer_0/kernel"]), turned)


def test_a_source_brings_companions_and_is_held_to_what_it_says(tmp_path, monkeypatch):
  save_file(projector(), tmp_path / "model.safetensors")
  planned = incoming.plan(str(tmp_path / "model.safetensors"), "projector", EXPERIMENT)
  monkeypatch.setattr(
    type(planned.source), "companions", lambda self: {"tokenizer.json": b"{}"}, raising=False
  )
  incoming.save(planned, str(tmp_path / "made"))
  file = tmp_path / "made" / incoming.COMPANIONS_FOLDER / "tokenizer.json"
  assert file.read_bytes() == b"{}"

  def check(size, source):
    raise EagleError(f"{size} is not what {source.description} says")

  part = parts.part(eagle_lib.build(MODEL), "projector")
  strict = dataclasses.replace(part.schemes[0], check=check)
  monkeypatch.setattr(
    parts, "part", lambda eagle, name, merged: dataclasses.replace(part, schemes=(strict,))
  )
  with pytest.raises(EagleError, match=r"is not what .*model\.safetensors says"):
    incoming.plan(str(tmp_path / "model.safetensors"), "projector", EXPERIMENT)


def test_an_interrupted_conversion_goes_on(tmp_path, monkeypatch):
  save_file(projector(), tmp_path / "model.safetensors")
  planned = incoming.plan(str(tmp_path), "projector", EXPERIMENT)
  real = checkpoint.Writer.put

  def killed(self, path, index, array):
    if path.endswith("layer_1/kernel"):
      raise KeyboardInterrupt
    real(self, path, index, array)

  monkeypatch.setattr(checkpoint.Writer, "put", killed)
  with pytest.raises(KeyboardInterrupt):
    incoming.save(planned, str(tmp_path / "made"))
  monkeypatch.undo()
  assert not (tmp_path / "made").exists()
  # Other weights under the same names must not be mixed with those written already.
  before = (tmp_path / "model.safetensors").stat()
  os.utime(tmp_path / "model.safetensors", ns=(before.st_atime_ns, before.st_mtime_ns + 1))
  with pytest.raises(EagleError, match="interrupted run wrote from other files"):
    incoming.save(planned, str(tmp_path / "made"))
  os.utime(tmp_path / "model.safetensors", ns=(before.st_atime_ns, before.st_mtime_ns))
  incoming.save(planned, str(tmp_path / "made"))
  assert len(checkpoint.stored(str(tmp_path / "made"))) == len(projector())


def test_nothing_is_written_for_a_file_that_does_not_fit(tmp_path):
  tensors = projector()
  tensors["model.mm_projector.0.weight"] = np.zeros((3, 3), np.float32)
  del tensors["model.mm_projector.2.bias"]
  save_file(tensors, tmp_path / "model.safetensors")
  with pytest.raises(EagleError, match="3 breaches"):
    incoming.plan(str(tmp_path), "projector", EXPERIMENT)


@pytest.mark.parametrize("text", ["{", "[]"])
def test_a_damaged_config_json_is_named(text, tmp_path):
  save_file(projector(), tmp_path / "model.safetensors")
  (tmp_path / "config.json").write_text(text)
  with pytest.raises(EagleError, match=r"config\.json"):
    incoming.plan(str(tmp_path), "whole")


def test_companions_are_taken_by_name_from_a_folder_only(tmp_path):
  for name in ("tokenizer.model", "config.json", "secret.txt"):
    (tmp_path / name).write_text(name)
  assert incoming.companions(tmp_path).keys() == {"tokenizer.model", "config.json"}
  assert incoming.companions(tmp_path / "config.json") == {}
