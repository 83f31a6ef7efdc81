import re

import numpy as np
import pytest
from PIL import Image

from eagle_jax.demo import report, results
from eagle_jax.demo.score import Score
from eagle_jax.errors import EagleError
from eagle_jax.train.stages import Row


def _results(digits=0.9, alone=None):
  parts = (Row("vision/clip", 1234567, 0, 0, 0.0), Row("projector", 4321, 4321, 4000, 1.0))

  def stage(label):
    losses = ((0, 2.0), (10, 1.0))
    return results.Stage(
      stage="pretrain", label=label, losses=losses, parts=parts, batch_size=64, seconds=61.0
    )

  sample = results.Sample(
    task="digits", image="a.png", question="Which <b>?", truth="7", sighted="7", blind="1"
  )
  return results.Results(
    title="The demonstration",
    origins={"experts": "drawn at <random>"},
    alone=alone,
    stages=(stage("sighted"), stage("blind")),
    scores=(
      Score("digits", 297, digits, 0.1, 0.11, "3"),
      Score("crops", 240, 0.8, 0.33, 0.33, "right"),
      Score("charts", 240, 0.9, 0.25, 0.25, "red"),
    ),
    samples=(sample,),
    seconds={"evaluation": 10.0},
    facts={"seed": "17"},
  )


@pytest.fixture
def images(tmp_path):
  Image.fromarray(np.zeros((4, 4, 3), np.uint8)).save(tmp_path / "a.png")
  return tmp_path


def test_everything_found_is_told(images):
  text = report.render(_results(), images)
  for told in ("90.0%", "10.0%", "11.0%", "297", "1,234,567", "1,238,888", "+80.0", "1:01"):
    assert told in text
  assert "The picture matters." in text
  assert "777 questions" in text
  assert "2:12 in all" in text
  assert "Which &lt;b&gt;?" in text


def test_where_the_weights_come_from_is_told(images):
  text = report.render(_results(), images)
  assert "<title>The demonstration</title>" in text
  assert "drawn at &lt;random&gt;" in text
  assert "The language model alone" not in text


def test_a_language_model_that_was_asked_alone_is_told(images):
  alone = results.Alone(
    difference=2e-5, limit=1e-3, reference="a reference", exchanges=(("Which sky?", "Blue <sky>"),)
  )
  text = report.render(_results(alone=alone), images)
  assert "within 2.0e-05 of a reference (at most 0.001)" in text
  assert "Which sky?" in text
  assert "Blue &lt;sky&gt;" in text


def test_runs_that_train_the_same_are_told_once(images):
  text = report.render(_results(), images)
  assert text.count("pretrain (sighted, blind)") == 1
  assert text.count("1,234,567") == 1


def test_a_model_that_does_not_look_is_named(images):
  text = report.render(_results(digits=0.3), images)
  assert "not shown to matter" in text
  assert "digits: sighted 30.0% minus blind 10.0% is 20.0%, it must be 60%" in text


def test_the_page_asks_for_nothing_from_outside(images):
  text = report.render(_results(), images)
  assert "<script" not in text
  assert re.findall(r'(?:src|href)="(?!data:)', text) == []
  assert "http" not in text


def test_the_json_beside_it_gives_the_results_back(images, tmp_path):
  path = tmp_path / "runs" / "report.html"
  report.write(_results(), images, path)
  assert results.from_json(path.with_suffix(".json").read_text()) == _results()
  assert path.read_text() == report.render(_results(), images)


def test_a_missing_picture_is_named(tmp_path):
  with pytest.raises(EagleError, match=r"a\.png"):
    report.render(_results(), tmp_path)
