"""The loop: it learns, it goes on after kill -9 as if nothing had happened, it refuses nonsense."""

import dataclasses
import json
import os
import pathlib
import signal
import subprocess
import sys
import time

import jax
import numpy as np
import pytest
from PIL import Image

from eagle_jax import checkpoint, config
from eagle_jax.errors import EagleError
from eagle_jax.train import loop, metrics, prepared
from tests.datasets import record
from tests.train.small_run import experiment

ROOT = pathlib.Path(__file__).parents[2]
STEPS, EVERY, KILL_AFTER = 16, 3, 7
PATIENCE = 300
"""Seconds until a child that should train is given up."""


def command(data, workdir, *, stage, start_from):
  """The command line of a stage on eight emulated devices."""
  fields = {
    "steps": STEPS,
    "checkpoints.every": EVERY,
    "mesh.data": 2,
    "mesh.fsdp": 2,
    "mesh.tensor": 2,
    "data.records": data.records,
    "data.images": data.images,
    "data.tokenizer": data.tokenizer,
    "data.template": "brief",
    "data.aspect": "pad",
    "start_from": ",".join(start_from),
    "init_missing": not start_from,
  }
  if stage != "prealign":
    fields["model.experts"] = "clip@demo"
  argument = "prealign,expert=clip" if stage == "prealign" else stage
  return [
    *(sys.executable, "-m", "eagle_jax", "train", f"--config=debug:{argument}"),
    *(f"--workdir={workdir}", "--devices=8"),
    *(f"--config.{name}={value}" for name, value in fields.items() if value != ""),
  ]


def train(arguments):
  done = subprocess.run(
    arguments, cwd=ROOT, capture_output=True, text=True, timeout=PATIENCE, check=False
  )
  assert done.returncode == 0, done.stderr[-3000:]


def kill_in_the_middle(arguments, workdir):
  """Starts training and kills it without warning once some steps are done."""
  child = subprocess.Popen(
    arguments, cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
  )
  begun = time.monotonic()
  while len(metrics.read(str(workdir))) < KILL_AFTER:
    assert child.poll() is None, "the run ended before it could be killed"
    assert time.monotonic() - begun < PATIENCE
    time.sleep(0.002)
  os.kill(child.pid, signal.SIGKILL)
  assert child.wait() == -signal.SIGKILL


def final(workdir):
  """Every parameter of a run's last checkpoint, as stored."""
  device = jax.sharding.SingleDeviceSharding(jax.devices()[0])
  shapes = checkpoint.stored(str(workdir))
  wanted = {p: jax.ShapeDtypeStruct(s, np.float32, sharding=device) for p, s in shapes.items()}
  return checkpoint.load_params(str(workdir), wanted)


@pytest.mark.slow
def test_every_stage_goes_on_bitwise_after_kill_9(tmp_path, dataset):
  data = dataset(11)
  start_from = ()
  for stage in config.STAGES:
    whole, killed = tmp_path / f"{stage}-whole", tmp_path / f"{stage}-killed"
    train(command(data, whole, stage=stage, start_from=start_from))
    arguments = command(data, killed, stage=stage, start_from=start_from)
    kill_in_the_middle(arguments, killed)
    train(arguments)
    assert metrics.read(str(killed)) == metrics.read(str(whole))
    assert [row["step"] for row in metrics.read(str(killed))] == list(range(1, STEPS + 1))
    left, right = final(killed), final(whole)
    assert left.keys() == right.keys()
    for path, array in left.items():
      np.testing.assert_array_equal(array, right[path], err_msg=f"{stage} {path}")
    start_from = (str(killed),)


def test_a_handful_of_records_is_learnt_by_heart(tmp_path, dataset):
  """Four pictures, one question: without looking the loss stays at a guess among four."""
  data = dataset(4)
  draw = np.random.default_rng(0)
  for number in range(4):
    blocks = draw.integers(0, 255, (4, 4, 3), dtype=np.uint8).repeat(16, 0).repeat(16, 1)
    Image.fromarray(blocks).save(pathlib.Path(data.images) / f"{number}.png")
  rate = config.Optimizer(peak_lr=2e-3, warmup_fraction=0.05, clip_norm=1.0)
  steps = 120
  chosen = experiment(
    data, steps=steps, optimizer=rate, checkpoints=config.Checkpoints(every=steps)
  )
  result = loop.run(chosen, str(tmp_path / "run"))
  losses = [row["loss"] for row in metrics.read(str(tmp_path / "run"))]
  assert len(losses) == result.steps == steps
  assert losses[0] > 2.0
  assert result.loss == losses[-1] < 0.02


def test_a_finished_run_has_nothing_left_to_do(tmp_path, dataset):
  chosen = experiment(dataset(5))
  loop.run(chosen, str(tmp_path / "run"))
  before = metrics.read(str(tmp_path / "run"))
  again = loop.run(chosen, str(tmp_path / "run"))
  assert again.steps == chosen.steps
  assert metrics.read(str(tmp_path / "run")) == before


def test_the_folder_says_what_was_run(tmp_path, dataset):
  chosen = experiment(dataset(5), stage="pretrain", steps=2)
  loop.run(chosen, str(tmp_path / "run"))
  written = json.loads((tmp_path / "run" / prepared.CONFIG_FILE).read_text())
  assert config.from_mapping(written) == chosen
  parts = json.loads((tmp_path / "run" / prepared.PARAMETERS_FILE).read_text())
  assert {row["part"]: row["trained"] > 0 for row in parts} == {
    "vision/clip": False,
    "projector": True,
    "language": False,
  }
  meta = checkpoint.read_meta(str(tmp_path / "run"))
  assert meta["stage"] == "pretrain"
  assert meta["template"] == "brief"
  assert len(meta["tokenizer"]) == 64


@pytest.mark.parametrize(
  "fields", [{"pack": True, "max_images": 2}, {"lengths": (32, 48), "device_resize": True}]
)
def test_planned_batches_are_trained_on(tmp_path, dataset, fields):
  """Packed rows, and batches of several shapes, some without image slots or on canvases."""
  words = [{**record(f"w{n}", "", "It is 7.", "Which?"), "image": None} for n in range(6)]
  data = dataclasses.replace(dataset(6, entries=words), **fields)
  chosen = experiment(data)
  loop.run(chosen, str(tmp_path / "run"))
  rows = metrics.read(str(tmp_path / "run"))
  assert [row["step"] for row in rows] == [1, 2, 3, 4]
  assert all(0 < row["loss"] < 10 for row in rows)


def test_a_folder_of_another_run_is_refused(tmp_path, dataset):
  chosen = experiment(dataset(5), steps=1)
  loop.run(chosen, str(tmp_path / "run"))
  with pytest.raises(EagleError, match=r"differs in seed; give the new run a folder"):
    loop.run(dataclasses.replace(chosen, seed=1), str(tmp_path / "run"))


def test_a_run_goes_on_with_other_sources_and_notes_their_licences(tmp_path, dataset, monkeypatch):
  data = dataset(5)
  one = config.Source(records=data.records, images=data.images, licence="CC0", weight=1.0)
  chosen = experiment(dataclasses.replace(data, records="", images="", sources=(one,), prefetch=2))
  folder = tmp_path / "run"

  write = metrics.Metrics.write

  def stop(self, step, values):
    if step == 3:
      raise KeyboardInterrupt
    write(self, step, values)

  with monkeypatch.context() as patched:
    patched.setattr(metrics.Metrics, "write", stop)
    with pytest.raises(KeyboardInterrupt):
      loop.run(chosen, str(folder))
  two = (one, dataclasses.replace(one, licence="CC-BY-4.0"))
  other = dataclasses.replace(
    chosen, data=dataclasses.replace(chosen.data, sources=two, prefetch=0, workers=0)
  )
  assert loop.run(other, str(folder)).steps == 4
  noted = [json.loads(line) for line in (folder / prepared.SOURCES_FILE).read_text().splitlines()]
  assert [row["step"] for row in noted] == [0, 2]
  assert [[s["licence"] for s in row["sources"]] for row in noted] == [
    ["CC0"],
    ["CC0", "CC-BY-4.0"],
  ]
  assert checkpoint.read_meta(str(folder))["config"]["data"]["sources"][1]["licence"] == "CC-BY-4.0"
  with pytest.raises(EagleError, match=r"differs in data\.aspect; give"):
    loop.run(
      dataclasses.replace(other, data=dataclasses.replace(other.data, aspect="square")), str(folder)
    )
