"""The whole demonstration, very short: every stage runs, every number of the report is its own."""

import dataclasses
import json
import os
import pathlib
import subprocess
import sys

import pytest

from eagle_jax.demo import provenance, recipe, records, results, runner
from eagle_jax.train import metrics

pytestmark = pytest.mark.slow

GAINS = {"digits": 0.6, "crops": 0.4, "charts": 0.15}
"""Task → least share of exact match that sight must add to blindness."""

SEEDS = os.environ.get("EAGLE_DEMO_SEEDS", "")
"""Folder of a whole demonstration, with `{seed}` in it; run there, or gone on with."""


@pytest.fixture(scope="module")
def out(tmp_path_factory):
  """The folder of a demonstration with one expert, four steps a stage and few records."""
  folder = tmp_path_factory.mktemp("demo")
  short = {
    name: dataclasses.replace(length, steps=2, batch=8)
    for name, length in recipe.SMALL_LENGTHS.items()
  }
  tasks = {
    name: dataclasses.replace(task, train=12, test=3) for name, task in records.TASKS.items()
  }
  small = recipe.small(recipe.Folders(folder))
  chosen = dataclasses.replace(small, experts=("pix2struct@demo",), lengths=short)
  runner.run(folder, seed=1, tasks=tasks, chosen=chosen)
  return folder


def test_every_stage_leaves_its_losses(out):
  for name in ("prealign-pix2struct", "pretrain", "finetune", "finetune-blind"):
    assert [row["step"] for row in metrics.read(str(out / name))] == [2], name


def test_the_results_are_those_of_the_run(out):
  found = results.from_json((out / "report.json").read_text())
  assert [stage.label for stage in found.stages] == [
    "prealign-pix2struct",
    "pretrain",
    "finetune",
    "finetune-blind",
  ]
  assert {score.task: score.count for score in found.scores} == dict.fromkeys(records.TASKS, 3)
  assert found.facts["seed"] == "1"
  assert found.facts["test records"] == str(3 * len(records.TASKS))
  for stage in found.stages:
    assert stage.losses[-1][1] == metrics.read(str(out / stage.label))[-1]["loss"]


def test_the_report_names_every_task(out):
  page = (out / "report.html").read_text()
  for task in records.TASKS:
    assert task in page


def test_the_trained_run_says_which_tokenizer_it_belongs_to(out):
  written = json.loads((out / "finetune" / "config.json").read_text())
  assert written["data"]["tokenizer"] == str(provenance.asset(provenance.TOKENIZER))


@pytest.mark.skipif(not SEEDS, reason="a quarter of an hour per seed: set EAGLE_DEMO_SEEDS")
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_the_picture_matters_whatever_the_seed(seed):
  folder = pathlib.Path(SEEDS.format(seed=seed))
  command = [sys.executable, "-m", "eagle_jax", "demo", f"--seed={seed}", f"--out={folder}"]
  subprocess.run(command, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
  found = results.from_json((folder / "report.json").read_text())
  assert found.facts["seed"] == str(seed)
  gains = {score.task: score.sighted - score.blind for score in found.scores}
  for task, least in GAINS.items():
    assert gains[task] >= least, (task, gains)
