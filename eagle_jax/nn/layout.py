"""Where each block of a stack lives once equal blocks are stacked.

A stack whose blocks differ in kind, such as EVA-02's windowed, windowed, global, …,
cannot be one scan. It is read as a unit repeated `count` times, then a rest shorter
than the unit. Unit and rest are cut into runs of equal kind; a run is one scan, the
groups another around it. Parameters of run r lie under `groups/run_r` with leading
axes [count, length], or under `rest/run_r` with one leading axis [length].

No jax here: weight tables read layouts too.
"""

from __future__ import annotations

import bisect
import dataclasses
import itertools
from collections.abc import Sequence


@dataclasses.dataclass(frozen=True)
class Run:
  """Neighbouring blocks of one kind."""

  kind: str
  length: int  # blocks


@dataclasses.dataclass(frozen=True)
class Layout:
  """How the kinds of a stack's blocks fold into groups and a rest.

  Attributes:
    kinds: the kind of every block, in order of application; at least one.
  """

  kinds: tuple[str, ...]

  def __post_init__(self) -> None:
    if not self.kinds:
      raise ValueError("a stack must have at least one block, kinds is empty")

  @property
  def depth(self) -> int:
    """Blocks in all."""
    return len(self.kinds)

  @property
  def period(self) -> int:
    """Blocks of the smallest unit whose repetition gives all kinds, the last one cut short."""
    for period in range(1, self.depth):
      if all(kind == self.kinds[n % period] for n, kind in enumerate(self.kinds)):
        return period
    return self.depth

  @property
  def count(self) -> int:
    """Whole units in the stack, at least one; first axis of leaves [count, length, ...]."""
    return self.depth // self.period

  @property
  def unit(self) -> tuple[Run, ...]:
    """Runs of the repeated unit, each with leaves [count, length, ...]."""
    return _runs(self.kinds[: self.period])

  @property
  def rest(self) -> tuple[Run, ...]:
    """Runs of the blocks after the last whole unit, each with leaves [length, ...]; may be none."""
    return _runs(self.kinds[self.count * self.period :])

  def place(self, n: int) -> tuple[str, tuple[int, ...]]:
    """Returns the run of block n as a path, and the block's index on its leading axes.

    Leaves are [count, length, ...] in the groups and [length, ...] in the rest.

    Raises:
      IndexError: if n is not in [0, depth).
    """
    if not 0 <= n < self.depth:
      raise IndexError(f"block {n} of a stack of {self.depth}")
    group, within = divmod(n, self.period)
    if group < self.count:
      run, within = _locate(self.unit, within)
      return f"groups/run_{run}", (group, within)
    run, within = _locate(self.rest, within)
    return f"rest/run_{run}", (within,)

  def slot(self, n: int) -> str:
    """Returns where block n lies in weight tables: 'groups/run_0[2,1]' or 'rest/run_0[0]'."""
    path, index = self.place(n)
    return f"{path}[{','.join(map(str, index))}]"

  def slots(self) -> dict[str, str]:
    """Returns the slot of every block under its number in source names."""
    return {str(n): self.slot(n) for n in range(self.depth)}

  def probe(self, n: int) -> tuple[str, tuple[int, ...]]:
    """Returns where the output of block n lies among the probes: a path and an index.

    Outputs [B, H, W, C] of a run are stacked as its parameters are, [count, length, B, H, W, C]
    or [length, B, H, W, C]; `stack.block_output` looks one up.
    """
    path, index = self.place(n)
    return f"{path}/block", index


def _runs(kinds: Sequence[str]) -> tuple[Run, ...]:
  """Joins neighbours of equal kind."""
  return tuple(Run(kind, len(list(same))) for kind, same in itertools.groupby(kinds))


def _locate(runs: Sequence[Run], n: int) -> tuple[int, int]:
  """Returns the run that block n of these runs is in, and its number within that run."""
  ends = list(itertools.accumulate(run.length for run in runs))
  run = bisect.bisect_right(ends, n)
  return run, n - (ends[run] - runs[run].length)
