import pytest

from eagle_jax.demo import score
from eagle_jax.demo.records import turns
from eagle_jax.errors import EagleError


def _records(task, *answers, part="test"):
  return [
    {"id": f"{task}-{part}-{n}", "task": task, "conversations": turns("q", answer)}
    for n, answer in enumerate(answers)
  ]


def test_a_table_of_two_tasks():
  train = _records("digits", "1", "2", "2") + _records("rows", "3 4")
  test = _records("digits", "1", "2", "2", "3") + _records("rows", "5 6")
  sighted = {"digits-test-0": "1", "digits-test-1": " 2\n", "digits-test-2": "7"}
  sighted |= {"digits-test-3": "3", "rows-test-0": "5  6"}
  blind = {record["id"]: "2" for record in test}
  digits, rows = score.table(train, test, sighted=sighted, blind=blind)
  assert (digits.task, digits.count, digits.commonest) == ("digits", 4, "2")
  assert (digits.sighted, digits.blind, digits.majority) == (0.75, 0.5, 0.5)
  assert digits.margin == 0.25
  assert (rows.sighted, rows.blind, rows.majority) == (1.0, 0.0, 0.0)


def test_exact_means_exact():
  test = _records("words", "The")
  assert score.matches(test, {"words-test-0": "the"}) == {"words-test-0": False}
  assert score.matches(test, {"words-test-0": "The."}) == {"words-test-0": False}


def test_an_unanswered_record_is_an_error():
  with pytest.raises(EagleError, match="1 of 2 have none, the first is 'words-test-1'"):
    score.matches(_records("words", "a", "b"), {"words-test-0": "a"})


def test_a_task_that_was_never_trained_is_an_error():
  with pytest.raises(EagleError, match="'words' is tested and never trained"):
    score.table(
      [], _records("words", "a"), sighted={"words-test-0": "a"}, blind={"words-test-0": ""}
    )


def test_ties_of_the_commonest_go_by_the_alphabet():
  assert score.commonest(_records("t", "b", "a", "b", "a", "c")) == {"t": "a"}


def test_shortfalls_name_values_and_missing_tasks():
  good = score.Score("digits", 10, 0.9, 0.1, 0.1, "1")
  poor = score.Score("crops", 10, 0.5, 0.3, 0.3, "right")
  told = score.shortfalls([good, poor])
  assert len(told) == 2
  assert told[0] == "crops: sighted 50.0% minus blind 30.0% is 20.0%, it must be 40%"
  assert told[1].startswith("charts: not tested")
  assert score.shortfalls([good], {"digits": 0.6}) == ()
