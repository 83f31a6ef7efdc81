import pathlib
import sys

import pytest

from eagle_jax import config
from eagle_jax.data import build, sources, tfds_builder
from eagle_jax.data.records import Limits
from eagle_jax.errors import EagleError
from tests.datasets import record


def wanted(data, budget=0.0):
  source = config.Source(records=data.records, images=data.images)
  return build.Wanted(source, Limits(1), budget, 0)


def test_the_order_and_the_files_stay_and_tensorflow_is_not_needed(dataset, tmp_path):
  kind = record("kind", None, "Ho", question="Hi")
  kind["conversations"].insert(0, {"from": "system", "value": "Be kind."})
  data = dataset(4, broken=[1], entries=[kind])
  folder = tfds_builder.write(wanted(data, 0.25), str(tmp_path / "out"))
  source = sources.open_source(folder, "", Limits(1))
  assert [source[n].id for n in range(len(source))] == ["0", "2", "3", "kind"]
  assert [source[n].system for n in (2, 3)] == ["", "Be kind."]
  assert [turn.text for turn in source[3].turns] == ["Hi", "Ho"]
  assert source[1].images == ((pathlib.Path(data.images) / "2.png").read_bytes(),)
  assert "tensorflow" not in sys.modules


def test_nothing_is_left_of_a_build_that_fails(dataset, tmp_path):
  data = dataset(4, broken=[1])
  with pytest.raises(EagleError, match=r"1 of 4 .*unreadable image"):
    tfds_builder.write(wanted(data, 0.1), str(tmp_path / "out"))
  assert not (tmp_path / "out").exists()
  with pytest.raises(EagleError, match="exists already"):
    tfds_builder.write(wanted(data), str(tmp_path))
