"""Exports: after training too, with what the import had kept for the way back."""

import dataclasses
import json

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from eagle_jax import checkpoint, config
from eagle_jax.convert import engine
from eagle_jax.errors import EagleError
from eagle_jax.interchange import incoming, outgoing, parts
from eagle_jax.model import eagle as eagle_lib

MODEL = config.Model(experts=("clip@demo",), language="demo", image_size=64, grid_side=4)
EXPERIMENT = config.Experiment(name="test", model=MODEL)
NORM = "model.vision_tower.vision_towers.0.vision_tower.vision_model.post_layernorm.weight"


@pytest.fixture
def imported(tmp_path):
  """A converted checkpoint of the whole, with a carried tensor and a tokenizer."""
  part = parts.part(eagle_lib.build(MODEL), "whole")
  leaves = engine.flatten(part.targets(part.schemes[0])[0])
  params = {path: np.ones(leaf.shape, np.float32) for path, leaf in leaves.items()}
  tensors = dict(engine.export(part.table(part.schemes[0]), params))
  folder = tmp_path / "original"
  folder.mkdir()
  save_file(tensors | {NORM: np.full(64, 3, np.float32)}, folder / "model.safetensors")
  (folder / "tokenizer.model").write_bytes(b"theirs")
  incoming.save(incoming.plan(str(folder), "whole", EXPERIMENT), str(tmp_path / "imported"))
  return tmp_path / "imported"


def trained(imported, tmp_path):
  """A checkpoint as a stage that started from the imported one would leave it."""
  params = {path: np.asarray(a) for path, a in checkpoint.open_params(str(imported)).items()}
  params["projector/layer_0/bias"] = params["projector/layer_0/bias"] + 1
  experiment = dataclasses.replace(EXPERIMENT, start_from=(f"vision/.*={imported}", "/gone"))
  meta = {"config": dataclasses.asdict(experiment)}
  checkpoint.save_params(str(tmp_path / "trained"), params, meta)
  return tmp_path / "trained"


def test_what_was_kept_comes_back_after_training(imported, tmp_path):
  made = trained(imported, tmp_path)
  target = tmp_path / "back"
  files = outgoing.export(str(made), str(target), what="whole", experiment=EXPERIMENT)
  assert sorted(files) == ["config.json", "model.safetensors", "tokenizer.model"]
  tensors = load_file(target / "model.safetensors")
  assert tensors[NORM].sum() == 3 * 64
  assert tensors["model.mm_projector.0.bias"].min() == 2
  assert (target / "tokenizer.model").read_bytes() == b"theirs"


def test_without_an_import_the_config_and_the_runs_tokenizer_are_written(tmp_path):
  leaves = engine.flatten(eagle_lib.abstract_params(eagle_lib.build(MODEL)))
  params = {path: np.ones(leaf.shape, np.float32) for path, leaf in leaves.items()}
  checkpoint.save_params(str(tmp_path / "made"), params, {})
  (tmp_path / "t.json").write_text("{}")
  data = config.Data(tokenizer=str(tmp_path / "t.json"))
  experiment = dataclasses.replace(EXPERIMENT, data=data)
  target = tmp_path / "back"
  outgoing.export(str(tmp_path / "made"), str(target), what="whole", experiment=experiment)
  assert json.loads((target / "config.json").read_text())["mm_vision_tower"] == "clip-448"
  assert (target / "tokenizer.json").read_text() == "{}"


def test_nothing_is_written_where_something_is_missing(imported, tmp_path):
  other = dataclasses.replace(MODEL, experts=("clip@demo", "sam@demo"))
  experiment = dataclasses.replace(EXPERIMENT, model=other)
  with pytest.raises(EagleError, match="parameters of 'sam', it lacks"):
    outgoing.export(str(imported), str(tmp_path / "back"), what="sam", experiment=experiment)
  assert not (tmp_path / "back").exists()
  with pytest.raises(EagleError, match="exists already"):
    outgoing.export(str(imported), str(tmp_path), what="clip", experiment=EXPERIMENT)


def test_a_language_model_leaves_in_the_names_of_transformers(imported, tmp_path):
  target = tmp_path / "language"
  outgoing.export(str(imported), str(target), what="language", experiment=EXPERIMENT)
  names = load_file(target / "model.safetensors")
  assert "model.layers.0.self_attn.q_proj.weight" in names
  checkpoint.save_params(
    str(tmp_path / "alone"),
    {p: np.asarray(a) for p, a in checkpoint.open_params(str(imported)).items() if "language" in p},
    {"scheme": "gguf"},
  )
  target = tmp_path / "again"
  outgoing.export(str(tmp_path / "alone"), str(target), what="language", experiment=EXPERIMENT)
  assert load_file(target / "model.safetensors").keys() == names.keys()
  assert json.loads((target / "config.json").read_text())["model_type"] == "llama"
  came_in = outgoing.tensors(str(tmp_path / "alone"), "language", EXPERIMENT)
  assert "token_embd.weight" in {tensor.name for tensor in came_in}
