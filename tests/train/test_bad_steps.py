"""Skipped updates: counted, named with their records, and too many end the run."""

import contextlib
import dataclasses
import json
import math
import shlex
import sys

import jax.numpy as jnp
import numpy as np
import pytest

from eagle_jax import config
from eagle_jax.data import pipeline, planned
from eagle_jax.errors import EagleError
from eagle_jax.train import bad_steps, loop, metrics
from eagle_jax.types import PLACEHOLDER
from tests.train.small_run import experiment


def opened(data, **options):
  return contextlib.closing(
    pipeline.make_iterator(data, batch_size=4, seed=0, image_size=16, tokens_per_image=4, **options)
  )


def rows(folder):
  return [json.loads(line) for line in (folder / bad_steps.FILE).read_text().splitlines()]


def measured(skipped, loss=2.0):
  return {
    name: jnp.float32(v)
    for name, v in (("skipped", skipped), ("loss", loss), ("grad_norm", 1.0), ("other", 0.0))
  }


@pytest.mark.parametrize(
  "fields", [{}, {"lengths": (40, 64)}, {"pack": True, "pack_images": 3, "max_images": 1}]
)
def test_the_records_of_a_batch_are_known_from_its_place(dataset, fields, monkeypatch):
  """Picture n is of colour 10 n, so the batch itself says which records it has."""
  monkeypatch.setattr(planned, "PACKED_SAMPLES", 30)
  data = dataset(9, broken=(4,), bad_budget=1.0, **fields)
  with opened(data) as stream:
    for _ in range(6):
      before = stream.get_state()
      batch = next(stream)
      after = stream.get_state()
      told = stream.records(before)
      assert stream.get_state() == after
      middle = np.asarray(batch.images)[:, :, 8, 8, 0].ravel()  # padding is above and below
      used = np.sum(np.asarray(batch.tokens) == PLACEHOLDER) // 4
      colours = sorted(int(c) for c in middle if c % 10 == 0)
      assert len(colours) == used
      names = sorted(10 * int(each["id"]) for each in told)
      assert [name for name in names if name != 40] == colours  # a plan leaves the broken one out
      assert 40 not in names or fields
      assert all(data.records in each["place"] for each in told)


def test_what_a_killed_run_noted_is_noted_once(tmp_path, dataset, capsys):
  with opened(dataset(5)) as stream:
    start = stream.get_state()
    for done in (0, 1):
      bad = bad_steps.BadSteps(str(tmp_path), stream, limit=3, done=done)
      for step in range(done + 1, 4):
        bad.note(step, measured(step != 2, math.nan), start)
      bad.settle()
      bad.close()
    found = rows(tmp_path)
    assert [row["step"] for row in found] == [1, 3]
    assert found[0]["loss"] == "nan"
    [of_process] = found[0]["batch"]
    assert of_process["position"] == start
    assert of_process["records"] == stream.records(start)
  assert "step 3 skipped: loss nan, grad_norm 1.0" in capsys.readouterr().out


def test_only_updates_in_a_row_count(tmp_path, dataset):
  with opened(dataset(5)) as stream:
    bad = bad_steps.BadSteps(str(tmp_path), stream, limit=2, done=0)
    for step in range(1, 8):
      bad.note(step, measured(step % 2), stream.get_state())
      bad.settle()
    bad.note(8, measured(1), stream.get_state())
    with pytest.raises(EagleError, match=r"2 were, the last at step 8: loss 2, gradient norm 1"):
      bad.settle()
    bad.close()


def test_the_replay_is_the_same_command_in_another_folder(tmp_path, monkeypatch):
  run = tmp_path / "a run"
  for step in ("2", "4", "6", "5.saving"):
    (run / "checkpoints" / step).mkdir(parents=True)
  given = ["eagle-jax", "train", "--config=debug", "--workdir", str(run), "--config.name=a b"]
  monkeypatch.setattr(sys, "argv", given)
  words = shlex.split(bad_steps.replay(str(run), 6))
  again = f"{run}-replay"
  assert words[:4] == ["mkdir", "-p", f"{again}/checkpoints", "&&"]
  assert words[4:8] == ["cp", "-r", f"{run}/checkpoints/4", f"{again}/checkpoints"]
  assert words[-4:] == ["train", "--config=debug", "--config.name=a b", f"--workdir={again}"]
  assert "cp" not in shlex.split(bad_steps.replay(str(run), 2))


def test_a_run_that_only_skips_ends(tmp_path, dataset):
  """The first update throws the parameters out of all bounds; no other can be made."""
  wild = config.Optimizer(peak_lr=1e35, warmup_fraction=0.0, max_skipped=3)
  chosen = experiment(dataset(5), steps=9, optimizer=wild, mesh=config.Mesh(data=4, fsdp=2))
  run = tmp_path / "run"
  with pytest.raises(EagleError, match=r"3 were, the last at step 4: .*bad_steps\.jsonl names"):
    loop.run(dataclasses.replace(chosen, batch_size=8), str(run))
  found = rows(run)
  assert [row["step"] for row in found] == [2, 3, 4]
  assert [len(row["batch"][0]["records"]) for row in found] == [8, 8, 8]
  assert [row["skipped"] for row in metrics.read(str(run))] == [0, 1, 1, 1]
