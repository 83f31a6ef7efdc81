import dataclasses
import json
import time

import jax
import pytest

from eagle_jax.sharding import introduction

FIRST = introduction.Introduction(0, 4, "a", 7, {"jax": "1"}, {"config.seed": "0"})


@pytest.mark.parametrize(
  ("changes", "told"),
  [
    ({}, []),
    ({"count": 2}, ["process 1 (b, pid 8) has --processes 2, process 0 (a, pid 7) has 4"]),
    ({"versions": {"jax": "2"}}, ["process 1 (b, pid 8) has jax 2, process 0 (a, pid 7) has 1"]),
    (
      {"versions": {"jax": "1", "libtpu": "3"}, "fields": {"config.seed": "5"}},
      [
        "process 1 (b, pid 8) has libtpu 3, process 0 (a, pid 7) has none",
        "process 1 (b, pid 8) has config.seed 5, process 0 (a, pid 7) has 0",
      ],
    ),
    ({"index": 4}, ["process 4 (b, pid 8) is none of 0 to 3"]),
    ({"ahead": 59.0}, []),
    (
      {"ahead": -61.0},
      [
        "the clock of process 1 (b, pid 8) is 61 s behind that of process 0, 60 s are the limit",
      ],
    ),
  ],
)
def test_differences_are_named(changes, told):
  other = dataclasses.replace(FIRST, **{"index": 1, "host": "b", "pid": 8, **changes})
  assert introduction.differences(FIRST, other) == told


def test_a_line_says_all_and_what_the_clock_says():
  said = introduction.introduce(1, 2, {"config.name": '"é"'})
  assert said.versions["jax"] == jax.__version__
  heard = introduction.parse(said.line())
  assert dataclasses.replace(heard, ahead=0.0) == said
  assert -5 < heard.ahead <= 0
  late = {**json.loads(said.line()), "clock": time.time() + 100}
  assert 95 < introduction.parse(json.dumps(late).encode()).ahead <= 100


@pytest.mark.parametrize(
  "line",
  [
    b"",
    b"GET / HTTP/1.1",
    b"\xff\xfe",
    b"[]",
    b"{}",
    b'{"index": null}',
    b'{"index": 1, "count": 2}',
  ],
)
def test_anything_else_is_no_introduction(line):
  with pytest.raises(ValueError):  # noqa: PT011 - json, unicode and our own say different things
    introduction.parse(line)


@pytest.mark.parametrize(
  ("numbers", "text"),
  [
    ([3], "process 3"),
    ([2, 1], "processes 1, 2"),
    ([0, 3, 7, 8, 9, 10], "processes 0, 3, 7-10"),
  ],
)
def test_numbers_are_drawn_together(numbers, text):
  assert introduction.named(numbers) == text
