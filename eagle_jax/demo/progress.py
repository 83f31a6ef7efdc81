"""Progress of whatever takes over five seconds, with the time that is left."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import TextIO, TypeVar

from eagle_jax.train.progress import Progress

Value = TypeVar("Value")


def track(
  values: Iterable[Value], total: int, label: str, *, out: TextIO | None = None
) -> Iterator[Value]:
  """Yields the values and shows how many of `total` are done, on standard error by default."""
  bar = Progress(label, total, out=out)
  for done, value in enumerate(values, 1):
    yield value
    bar.show(done)


def span(seconds: float) -> str:
  """Returns a duration as `m:ss`, or `h:mm:ss` from an hour on."""
  minutes, rest = divmod(round(seconds), 60)
  hours, minutes = divmod(minutes, 60)
  return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"
