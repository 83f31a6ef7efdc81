import numpy as np
import pytest

from eagle_jax import checkpoint
from eagle_jax.demo import language, provenance, text

for package in ("sklearn", "skimage", "vega_datasets", "matplotlib"):
  pytest.importorskip(package)

# It compiles a training step and a grading one, about fifteen seconds together.
pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def shipped(tmp_path_factory):
  """A language model after two updates: worth nothing, made the way the real one is."""
  folder = tmp_path_factory.mktemp("assets")
  with pytest.MonkeyPatch.context() as patch:
    for name, value in {"RECORDS": 32, "BATCH": 8, "HELD_OUT": 24, "LINES": 3000}.items():
      patch.setattr(language, name, value)
    language.make(seed=0, steps=2, folder=folder)
  return folder


def test_two_files_are_shipped_with_their_story(shipped):
  for name in (provenance.TOKENIZER, provenance.LANGUAGE_MODEL):
    assert provenance.asset(name, shipped).stat().st_size > 0
  story = (shipped / "PROVENANCE.md").read_text()
  assert "2 updates of 8 rows" in story
  assert "digits" in story


def test_a_stage_can_start_from_what_is_shipped(shipped, tmp_path):
  folder = language.start(tmp_path / "language", assets=shipped)
  held = checkpoint.stored(str(folder))
  assert held["language/embed/embedding"] == (512, 128)
  assert all(path.startswith("language/") for path in held)
  read = language._read(provenance.asset(provenance.LANGUAGE_MODEL, shipped))
  assert {path: leaf.shape for path, leaf in read.items()} == held


def test_every_answer_but_that_of_ordinary_text_fits_a_row(shipped):
  from eagle_jax.data import tokenize

  known = tokenize.load(str(provenance.asset(provenance.TOKENIZER, shipped)))
  tasks = [record for record in text.records(64, 3) if record["task"] != text.TEXT_TASK]
  given = language._batch(tasks, known)
  assert given.images.shape[:2] == (len(tasks), 0)
  assert (given.tokens == known.eos_id).sum(1).tolist() == [1] * len(tasks)
  assert np.all(given.loss_mask.sum(1) >= 2)
