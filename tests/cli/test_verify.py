"""The verb verify: exit codes, what is printed, and what is refused."""

import dataclasses

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from eagle_jax import checkpoint, config
from eagle_jax.cli.main import main
from eagle_jax.convert import engine
from eagle_jax.model import eagle as eagle_lib

MODEL = config.Model(experts=("clip@demo",), language="demo", image_size=64, grid_side=4)


@pytest.fixture(scope="module")
def pair(tmp_path_factory):
  """A checkpoint, its export, and that converted again."""
  folder = tmp_path_factory.mktemp("pair")
  leaves = engine.flatten(eagle_lib.abstract_params(eagle_lib.build(MODEL)))
  rng = np.random.default_rng(0)
  params = {p: rng.normal(0, 0.05, leaf.shape).astype(np.float32) for p, leaf in leaves.items()}
  meta = {"config": dataclasses.asdict(config.Experiment(name="test", model=MODEL))}
  checkpoint.save_params(str(folder / "trained"), params, meta)
  back, again = str(folder / "back"), str(folder / "again")
  assert main(["export", f"--from={folder / 'trained'}", "--to", "hf", back]) == 0
  assert main(["convert", f"--from={back}", f"--to={again}"]) == 0
  return folder


def test_a_round_trip_is_the_same(pair, capsys):
  assert main(["verify", str(pair / "trained"), str(pair / "again"), "--logits"]) == 0
  out = capsys.readouterr().out
  assert "same bytes" in out
  assert "logits differ by 0 of their norm" in out


def test_a_difference_is_named_and_the_exit_code_tells(pair, tmp_path, capsys):
  tensors = load_file(pair / "back" / "model.safetensors")
  tensors["lm_head.weight"] = tensors["lm_head.weight"] + np.float32(1)
  save_file(tensors, tmp_path / "model.safetensors")
  assert main(["verify", str(pair / "again"), str(tmp_path)]) == 1
  assert "lm_head.weight: different float32 and float32, at most 1" in capsys.readouterr().out


def test_a_converted_checkpoint_is_held_against_its_manifest(pair, capsys):
  assert main(["verify", str(pair / "again")]) == 0
  assert "files are as they were written" in capsys.readouterr().out
  file = pair / "again" / "params" / "projector.layer_0.bias" / "0"
  data = file.read_bytes()
  file.write_bytes(bytes([data[0] ^ 1]) + data[1:])
  assert main(["verify", str(pair / "again")]) == 2
  assert "projector.layer_0.bias/0 is changed" in capsys.readouterr().err
  file.write_bytes(data)


def test_a_checkpoint_without_a_manifest_says_so(pair, capsys):
  assert main(["verify", str(pair / "trained")]) == 2
  assert "has no manifest.json" in capsys.readouterr().err


def test_missing_paths_are_one_line(capsys, tmp_path, monkeypatch):
  monkeypatch.chdir(tmp_path)
  assert main(["verify", "nowhere"]) == 2
  assert "checkpoint 'nowhere' is not there" in capsys.readouterr().err
