import pathlib
import pickle

import pytest

from eagle_jax import config
from eagle_jax.data import build, sources, tfds_builder
from eagle_jax.data.records import BadRecordError, Limits, Turn
from eagle_jax.errors import EagleError


@pytest.fixture
def written(tmp_path, dataset):
  data = dataset(3)
  source = config.Source(records=data.records, images=data.images, licence="CC-BY-4.0")
  return tfds_builder.write(build.Wanted(source, Limits(1), 0.0, 0), str(tmp_path / "tfds"))


def test_a_split_is_a_source_that_travels(written):
  source = sources.open_source(f"{written}#train", "", Limits(1))
  assert sources.recognise(written)[0] == "tfds"
  assert source.licence == "CC-BY-4.0"
  again = pickle.loads(pickle.dumps(source))
  assert again[2] == source[2]
  assert again[2].turns == (Turn("human", "<image>\nWhat is shown?"), Turn("gpt", "answer 2"))
  assert source.place(2) == f"{written}:3"
  with pytest.raises(BadRecordError, match="too many images"):
    sources.open_source(written, "", Limits(0))[0]


def test_what_is_no_such_data_set_is_refused(written, tmp_path):
  with pytest.raises(EagleError, match="no split of the data set is called 'tran', did you mean"):
    sources.open_source(f"{written}#tran", "", Limits(1))
  with pytest.raises(EagleError, match=r"it has no dataset_info\.json"):
    sources.open_source(f"tfds:{tmp_path}", "", Limits(1))
  (pathlib.Path(written) / "dataset_info.json").write_text("{")
  with pytest.raises(EagleError, match="is no TFDS data set: "):
    sources.open_source(written, "", Limits(1))


def test_a_shard_that_is_gone_is_named(written):
  source = sources.open_source(written, "", Limits(1))
  (shard,) = pathlib.Path(written).glob("*.array_record*")
  shard.unlink()
  with pytest.raises(EagleError, match=f"cannot be read: '{shard}'") as caught:
    source[0]
  assert not isinstance(caught.value, BadRecordError)
