import pytest

from eagle_jax import config
from eagle_jax.cli import describe
from eagle_jax.cli.main import main
from eagle_jax.train.stages import FROZEN, TRAINED


@pytest.fixture(scope="module")
def text():
  from eagle_jax.cli import config as cli_config

  experiment = cli_config.load("debug:pretrain").experiment
  return "\n".join(describe.lines(experiment, 8))


def test_every_expert_is_shown_with_its_grid(text):
  for expert in ("clip", "convnext", "sam", "eva02", "pix2struct"):
    assert f"\n  {expert} " in text
    assert f"\nvision/{expert} " in text


def test_the_path_ends_in_logits(text):
  assert "logits                [8, 128, 512] float32" in text
  assert "image tokens          [8, 4, 128] (mlp2x_gelu)" in text


def test_what_the_stage_trains_is_shown(text):
  assert "debug-pretrain: pretrain, " in text
  row = next(line.split() for line in text.splitlines() if line.startswith("projector"))
  assert row[1] == row[2]
  row = next(line.split() for line in text.splitlines() if line.startswith("language"))
  assert row[2] == "0"


def test_memory_counts_moments_and_gradients_of_what_is_trained_only():
  experiment = config.Experiment(name="x")
  shapes = {"a": (1024, 1024, 256), "b": (1024, 1024, 512)}
  chosen = {"a": TRAINED, "b": FROZEN}
  lines = list(describe.memory_lines(experiment, shapes, chosen, devices=4))
  figures = {line[:36].strip(): line[36:].split() for line in lines[1:]}
  assert figures["trained parameters, float32"] == ["1.00", "0.250"]
  assert figures["frozen parameters, bfloat16"] == ["1.00", "0.250"]
  assert figures["gradients"] == ["1.00", "0.250"]
  assert figures["AdamW's two moments"] == ["2.00", "0.500"]
  assert figures["together, without activations"] == ["5.00", "1.250"]


def test_a_wrong_expert_is_one_line(capsys):
  assert main(["describe", "--config=debug", "--config.model.experts=clip@demo,smm@demo"]) == 2
  assert "did you mean 'sam'" in capsys.readouterr().err


def test_sharding_is_listed_per_tensor(capsys):
  command = ["describe", "--config=debug:pretrain", "--sharding", "--devices=8"]
  assert main([*command, "--config.mesh.tensor=2", "--config.model.experts=clip@demo"]) == 0
  first, _, *rows, last = capsys.readouterr().out.splitlines()
  assert first == "data=1 fsdp=4 tensor=2 sequence=1, 8 devices"
  found = {row.split()[0]: row.split()[1:] for row in rows}
  # 512 rows of 128 numbers of four bytes, an eighth on each device.
  embedding = ["512×128", "vocab,width", "tensor,fsdp", f"{512 * 128 * 4 // 8:,}"]
  assert found["language/embed/embedding"] == embedding
  assert found["language/final_norm/scale"] == ["128", "-", "-", "512"]
  assert int(last.split()[1].replace(",", "")) == sum(
    int(row[-1].replace(",", "")) for row in found.values()
  )


def test_what_is_held_whole_is_listed_so(capsys):
  command = ["describe", "--config=debug:pretrain", "--sharding", "--devices=8"]
  whole = "--config.mesh.whole=vision/clip/.*,projector/.*"
  assert main([*command, whole, "--config.model.experts=clip@demo,sam@demo"]) == 0
  rows = [line.split() for line in capsys.readouterr().out.splitlines()[2:-1]]
  spread = {row[0].split("/kernel")[0] for row in rows if set(row[3].split(",")) != {"-"}}
  assert {"vision/sam/patches", "language/head"} <= spread
  assert not any(path.startswith(("vision/clip/", "projector/")) for path in spread)


def test_a_mesh_that_is_not_of_so_many_devices_is_refused(capsys):
  assert main(["describe", "--config=debug", "--sharding", "--config.mesh.tensor=3"]) == 2
  assert "must multiply to the device count" in capsys.readouterr().err
