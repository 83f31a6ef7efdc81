import io

from eagle_jax.demo import progress


class Terminal(io.StringIO):
  def isatty(self):
    return True


def test_everything_is_yielded_and_the_end_is_shown():
  for stream in (io.StringIO(), Terminal()):
    assert list(progress.track(iter("abc"), 3, "letters", out=stream)) == ["a", "b", "c"]
    assert "letters" in stream.getvalue()
    assert "3/3" in stream.getvalue()
    assert stream.getvalue().endswith("\n")


def test_an_unfinished_work_shows_no_end():
  stream = io.StringIO()
  values = progress.track(iter(range(100)), 100, "work", out=stream)
  for _ in range(7):
    next(values)
  values.close()
  assert "100/100" not in stream.getvalue()


def test_spans():
  assert [progress.span(s) for s in (0.4, 59.6, 61, 3725)] == ["0:00", "1:00", "1:01", "1:02:05"]
