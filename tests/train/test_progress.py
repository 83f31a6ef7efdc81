"""The status line."""

import io

import pytest

from eagle_jax.train import progress


class Terminal(io.StringIO):
  """A stream that says it is a terminal."""

  def isatty(self):
    return True


def test_a_terminal_sees_one_line_redrawn():
  out = Terminal()
  line = progress.Progress("demo", 2, out=out)
  line.show(1, "loss 1.0")
  line.show(2, "loss 0.5")
  text = out.getvalue()
  assert text.count("\n") == 1
  assert "2/2" in text
  assert "took loss 0.5" in text


def test_a_log_file_sees_few_lines():
  out = io.StringIO()
  line = progress.Progress("demo", 1000, out=out)
  for done in range(1, 1001):
    line.show(done)
  assert 1 <= out.getvalue().count("\n") <= 3
  assert "1000/1000" in out.getvalue()


@pytest.mark.parametrize(
  ("pace", "left"),
  [(0.5, "0:49 left"), (60.0, "1:38:00 left"), (3600.0, "4d 2:00 left")],
)
def test_the_time_left_follows_the_pace_it_is_told(monkeypatch, pace, left):
  now = iter((0.0, 1.0))
  monkeypatch.setattr(progress.time, "monotonic", lambda: next(now))
  out = Terminal()
  line = progress.Progress("demo", 100, out=out)
  line.show(2, pace=pace)
  assert left in out.getvalue()
