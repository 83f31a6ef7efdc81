"""The demonstration's runs: what each starts from, and that they are what stages demand."""

from pathlib import Path

from eagle_jax import config
from eagle_jax.demo import recipe
from eagle_jax.demo.records import DataSet

FOUND = DataSet(Path("data/images"), {"train": Path("data/train.json"), "test": Path("t.json")})
FOLDERS = recipe.Folders(Path("out"))
RUNS = recipe.runs(recipe.small(FOLDERS), FOLDERS, FOUND, seed=3)
EXPERTS = ("clip", "convnext", "sam", "eva02", "pix2struct")


def test_every_expert_is_aligned_before_the_joint_stages():
  assert [run.stage for run in RUNS] == ["prealign"] * 5 + ["pretrain", "finetune", "finetune"]
  assert [run.model.experts for run in RUNS[:5]] == [(f"{e}@demo",) for e in EXPERTS]
  assert len({run.name for run in RUNS}) == len(RUNS)


def test_every_run_is_valid_and_shares_the_seed():
  for run in RUNS:
    config.validate(run)
    assert run.seed == 3


def test_the_joint_projector_starts_from_all_aligned_experts():
  pretrain = RUNS[5]
  assert pretrain.start_from[:5] == tuple(
    f"vision/{expert}/.*=out/prealign-{expert}" for expert in EXPERTS
  )
  assert pretrain.start_from[5] == "out/language"
  assert not pretrain.init_missing


def test_blind_differs_from_sighted_in_its_pictures_alone():
  sighted, blind = RUNS[6:]
  assert (sighted.name, blind.name) == (recipe.SIGHTED, recipe.BLIND)
  assert blind.data.blank_images
  assert not sighted.data.blank_images
  assert (sighted.batch_size, sighted.optimizer) == (blind.batch_size, blind.optimizer)
  assert sighted.start_from == blind.start_from == ("out/pretrain",)
