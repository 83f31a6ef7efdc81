"""From foreign files to a checkpoint and back: every byte as it was."""

import dataclasses
import json

import ml_dtypes
import numpy as np
import pytest
from safetensors.numpy import save_file

from eagle_jax import checkpoint
from eagle_jax.cli import config as cli_config
from eagle_jax.cli.main import main
from eagle_jax.convert import engine
from eagle_jax.convert.files import open_source
from eagle_jax.interchange import parts, upstream
from eagle_jax.model import eagle as eagle_lib

EXPERTS = "clip@demo,convnext@demo,sam@demo,eva02@demo,pix2struct@demo"
CONFIG = ["--config=debug", f"--config.model.experts={EXPERTS}"]
BF16 = ml_dtypes.bfloat16


@pytest.fixture(scope="module")
def eagle():
  return eagle_lib.build(cli_config.load(CONFIG[0][9:], CONFIG[1:]).experiment.model)


def foreign(eagle, what, *, scheme=0, dtype=BF16):
  """Returns the tensors of a file as its authors would have saved it, carried ones included."""
  part = parts.part(eagle, what)
  chosen = part.schemes[scheme]
  leaves = engine.flatten(part.targets(chosen)[0])
  rng = np.random.default_rng(0)
  params = {path: rng.normal(size=leaf.shape).astype(dtype) for path, leaf in leaves.items()}
  tensors = dict(engine.export(part.table(chosen), params))
  if what == "whole":
    tower = "model.vision_tower.vision_towers."
    tensors[f"{tower}0.vision_tower.vision_model.post_layernorm.weight"] = np.ones(64, dtype)
    tensors[f"{tower}1.vision_tower.head.fc.weight"] = np.ones((10, 64), dtype)
  return tensors


def converted(tensors, what, tmp_path):
  """Writes the file and converts it; returns the checkpoint's folder."""
  save_file(tensors, tmp_path / "model.safetensors")
  made = str(tmp_path / "made")
  source = str(tmp_path / "model.safetensors")
  assert main(["convert", *CONFIG, f"--only={what}", f"--from={source}", f"--to={made}"]) == 0
  return made


@pytest.mark.parametrize("dtype", [BF16, np.float16, np.float32])
@pytest.mark.parametrize("what", ["whole", "language", "projector", "convnext"])
def test_every_byte_comes_back(eagle, what, dtype, tmp_path, capsys):
  tensors = foreign(eagle, what, dtype=dtype)
  made = converted(tensors, what, tmp_path)
  back = tmp_path / "back"
  assert main(["export", f"--from={made}", f"--only={what}", "--to", "hf", str(back)]) == 0
  assert "saved model.safetensors" in capsys.readouterr().out
  source = open_source(back)
  assert source.entries().keys() == tensors.keys()
  for name, array in tensors.items():
    assert source.read(name).dtype == array.dtype
    assert source.read(name).tobytes() == array.tobytes(), name


def test_a_file_goes_back_to_the_names_it_came_in(eagle, tmp_path):
  names = [scheme.name for scheme in parts.part(eagle, "sam").schemes]
  tensors = foreign(eagle, "sam", scheme=names.index("meta"))
  made = converted(tensors, "sam", tmp_path)
  # What Meta's file does not hold training draws; export alone cannot make it up.
  assert main(["export", f"--from={made}", "--only=sam", "--to", "hf", str(tmp_path / "b")]) == 0
  assert open_source(tmp_path / "b").entries().keys() == tensors.keys()


def test_a_part_of_the_whole_has_its_own_names(eagle, tmp_path):
  made = converted(foreign(eagle, "whole"), "whole", tmp_path)
  back = tmp_path / "back"
  assert main(["export", f"--from={made}", "--only=clip", "--to", "hf", str(back)]) == 0
  source = open_source(back)
  assert "vision_model.pre_layrnorm.weight" in source.entries()
  assert not any(name.startswith("model.") for name in source.entries())
  assert source.read("vision_model.post_layernorm.weight").sum() == 64  # carried along


def test_parts_of_a_merged_checkpoint_go_in_and_out_without_the_rest(eagle, tmp_path, capsys):
  whole = foreign(eagle, "whole")
  made = converted(whole, "projector,clip", tmp_path)
  held = {path.rpartition("/")[0].split("/")[0] for path in checkpoint.stored(made)}
  assert held == {"vision", "projector"}
  told = json.loads((tmp_path / "made" / "provenance.json").read_text())
  assert told["dropped"]["lm_head.weight"] == "of 'language', which was not asked for"
  wanted = {
    name: array
    for name, array in whole.items()
    if name.startswith(("model.mm_projector.", "model.vision_tower.vision_towers.0."))
  }
  assert set(told["tensors"]) | set(told["carried"]) == wanted.keys()

  back, again = tmp_path / "back", str(tmp_path / "again")
  assert main(["export", f"--from={made}", "--only=clip,projector", "--to", "hf", str(back)]) == 0
  assert [path.name for path in back.iterdir()] == ["model.safetensors"]
  source = open_source(back)
  assert source.entries().keys() == wanted.keys()
  assert all(source.read(name).tobytes() == array.tobytes() for name, array in wanted.items())
  arguments = [*CONFIG, "--only=clip,projector", f"--from={back}", f"--to={again}"]
  assert main(["convert", *arguments]) == 0
  assert checkpoint.stored(again) == checkpoint.stored(made)
  capsys.readouterr()
  for only, other in (("projector,clip", again), ("clip", str(tmp_path / "model.safetensors"))):
    assert main(["verify", made, other, f"--only={only}"]) == 0  # one side knows the model
    assert "same bytes" in capsys.readouterr().out


def test_a_language_model_out_of_a_merged_folder_gets_its_own_config(eagle, tmp_path):
  folder, made, back = tmp_path / "Eagle", str(tmp_path / "made"), tmp_path / "back"
  folder.mkdir()
  save_file(foreign(eagle, "whole"), folder / "model.safetensors")
  model = cli_config.load(CONFIG[0][9:], CONFIG[1:]).experiment.model
  described = upstream.write(model, eagle.size, dtype="bfloat16")
  (folder / "config.json").write_text(json.dumps(described))
  (folder / "tokenizer.model").write_bytes(b"any")
  assert main(["convert", f"--from={folder}", f"--to={made}"]) == 0
  assert main(["export", f"--from={made}", "--only=language", "--to", "hf", str(back)]) == 0
  assert json.loads((back / "config.json").read_text())["architectures"] == ["LlamaForCausalLM"]
  assert (back / "tokenizer.model").read_bytes() == b"any"
  assert "lm_head.weight" in open_source(back).entries()


def test_a_checkpoint_without_the_part_is_refused(eagle, tmp_path, capsys):
  made = converted(foreign(eagle, "language"), "language", tmp_path)
  assert main(["export", f"--from={made}", "--to", "hf", str(tmp_path / "back")]) == 2
  assert "parameters of 'whole', it lacks" in capsys.readouterr().err
  assert not (tmp_path / "back").exists()


def test_a_folder_says_itself_what_model_it_is(eagle, tmp_path):
  tensors = foreign(eagle, "whole")
  folder = tmp_path / "Eagle"
  folder.mkdir()
  save_file(tensors, folder / "model.safetensors")
  model = cli_config.load(CONFIG[0][9:], CONFIG[1:]).experiment.model
  described = json.dumps(upstream.write(model, eagle.size, dtype="bfloat16"))
  (folder / "config.json").write_text(described)
  (folder / "tokenizer.model").write_bytes(b"any")
  (folder / "notes.txt").write_text("not the model's")
  made, back = str(tmp_path / "made"), tmp_path / "back"
  assert main(["convert", f"--from={folder}", f"--to={made}"]) == 0
  assert main(["export", f"--from={made}", "--to", "hf", str(back)]) == 0
  names = {"config.json", "model.safetensors", "tokenizer.model"}
  assert {path.name for path in back.iterdir()} == names
  assert (back / "config.json").read_text() == described
  assert open_source(back).entries() == open_source(folder).entries()


def test_a_folder_that_says_nothing_needs_a_config(eagle, tmp_path, capsys):
  save_file(foreign(eagle, "projector"), tmp_path / "model.safetensors")
  assert main(["convert", f"--from={tmp_path}", f"--to={tmp_path / 'made'}"]) == 2
  assert "holds no config.json that says what model it is; use --config" in capsys.readouterr().err


def test_what_was_trained_here_gets_a_config_json(eagle, tmp_path):
  leaves = engine.flatten(eagle_lib.abstract_params(eagle))
  params = {path: np.ones(leaf.shape, np.float32) for path, leaf in leaves.items()}
  experiment = cli_config.load(CONFIG[0][9:], CONFIG[1:]).experiment
  meta = {"config": dataclasses.asdict(experiment)}
  checkpoint.save_params(str(tmp_path / "made"), params, meta)
  back = tmp_path / "back"
  assert main(["export", f"--from={tmp_path / 'made'}", "--to", "hf", str(back)]) == 0
  again = str(tmp_path / "again")
  assert main(["convert", f"--from={back}", f"--to={again}"]) == 0
  assert checkpoint.stored(again) == {path: leaf.shape for path, leaf in leaves.items()}


@pytest.mark.parametrize(
  ("arguments", "told"),
  [
    (["--from=x"], "required: --to"),
    (["--from=x", "--to", "fh", "y"], "no format is called 'fh', did you mean 'hf'?"),
    (["--from=nowhere", "--to", "hf", "y"], "checkpoint 'nowhere' is not there"),
    (["--from=.", "--to", "hf", "."], "exists already"),
    (["--what=clip", "--from=.", "--to", "hf", "y"], "has no flag '--what'"),
  ],
)
def test_mistakes_are_one_line(arguments, told, capsys, tmp_path, monkeypatch):
  monkeypatch.chdir(tmp_path)
  assert main(["export", *arguments]) == 2
  err = capsys.readouterr().err
  assert told in err
  assert err.count("\n") == 1
