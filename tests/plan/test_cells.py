"""Which cells there are, and on which mesh each is."""

import dataclasses

import pytest

from eagle_jax import config
from eagle_jax.cli import config as cli_config
from eagle_jax.errors import EagleError
from eagle_jax.plan import cells, slices
from tests.plan import cases


def test_every_cell_is_a_recipe_of_its_own_on_a_slice_that_there_is():
  assert len({cell.file for cell in cells.CELLS}) == len(cells.CELLS) == 32 + 5 + 6
  for recipe in {cell.recipe for cell in cells.CELLS}:
    assert cli_config.load(recipe).experiment.name
  assert {slices.parse(cell.slice).chips for cell in cells.CELLS} == {64, 256}


def test_patterns_choose():
  chosen = cells.select("*yi_34b:finetune@* *expert=sam@*")
  assert [cell.slice for cell in chosen] == [*cells.SLICES, cells.ALONE]
  with pytest.raises(EagleError, match=r"no cell matches 'eagle_x5_yi@v5e-256'.*did you mean"):
    cells.select("eagle_x5_yi@v5e-256")


@pytest.mark.parametrize(
  ("rows", "name", "count", "expected"),
  [
    (128, "v5e-32", 1, config.Mesh(data=1, tensor=1)),
    (128, "v5p-128", 1, config.Mesh(data=2, tensor=1)),
    (128, "v5p-128", 2, config.Mesh(data=4, tensor=1)),
    (128, "v5e-256", 1, config.Mesh(data=1, tensor=2)),
    (96, "v5e-256", 1, config.Mesh(data=1, tensor=8)),
    (128, "v5e-32", 2, config.Mesh(data=2, tensor=1)),
  ],
)
def test_tensor_is_the_smallest_that_deals_rows_out(rows, name, count, expected):
  wanted = slices.parse(name, count)
  experiment = cases.experiment("finetune", f"--config.batch_size={rows}")
  assert cells.placed(experiment, wanted).mesh == expected


def test_halves_of_a_slice_are_groups_only_where_the_language_model_is_trained():
  wanted = slices.parse("v5p-128")
  frozen = cases.experiment("pretrain", "--config.batch_size=128")
  assert cells.placed(frozen, wanted).mesh == config.Mesh(data=1, tensor=1)
  unlocked = dataclasses.replace(frozen, unlock=("language/.*",))
  assert cells.placed(unlocked, wanted).mesh == config.Mesh(data=2, tensor=1)


def test_a_mesh_of_ones_own_stays_and_odd_rows_are_refused():
  own = dataclasses.replace(cases.experiment(), mesh=config.Mesh(fsdp=2, tensor=2))
  assert cells.placed(own, slices.parse("v5e-4")) == own
  odd = cases.experiment("finetune", "--config.batch_size=7")
  with pytest.raises(EagleError, match="7 rows out evenly over 8 chips"):
    cells.placed(odd, slices.parse("v5e-4", 2))
