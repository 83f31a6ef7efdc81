"""How records are dealt to processes, and where each goes on when there are more or fewer of them.

Batch k of all processes together holds the same records however many there are: those from
k·B to (k+1)·B in the order of training or, where batches are planned from the samples of all
processes, those of plan k. So the batches given so far say where any process goes on.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

from eagle_jax import config
from eagle_jax.errors import EagleError


class Dealing(NamedTuple):
  """How the records of a batch come to the processes.

  Attributes:
    readers: shares that a batch is read in, usually one by each process.
    shared: whether every process goes through the records of all, to plan alike.
    bound: why a position holds for as many readers only, '' where it does not.
  """

  readers: int
  shared: bool
  bound: str

  def told(self, position: dict[str, Any]) -> dict[str, Any]:
    """Returns a position here as one that `here` understands elsewhere."""
    return {**position, "readers": self.readers}

  def here(self, position: dict[str, Any]) -> dict[str, Any]:
    """Returns where to go on with this many readers.

    Args:
      position: as `told` gave it; without a number of readers, of as many as here.

    Raises:
      EagleError: if other batches would follow than there.
    """
    there = int(position.get("readers", self.readers))
    if there == self.readers:
      return position
    if self.bound:
      raise EagleError(
        f"the rows of a batch were read by {there} processes and are by {self.readers} now: a run "
        f"goes on with as many as it had, for {self.bound}. A new run may take the parameters "
        "alone (start_from)"
      )
    if self.shared:
      return position
    return {**position, "position": int(position["position"]) * there // self.readers}

  def adopted(self, positions: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Returns where to go on from the positions of all processes of a run, as `here` does.

    Args:
      positions: in the order of the processes; those of an older version tell of no readers,
        for there each process was one.

    Raises:
      EagleError: if other batches would follow than there.
    """
    if any(position != positions[0] for position in positions):
      raise EagleError(f"the processes stood behind different batches: {list(positions)}")
    return self.here({"readers": len(positions), **positions[0]})


def dealing(data: config.Data, *, epoch: int, batch_size: int, readers: int) -> Dealing:
  """Returns how records are dealt.

  Args:
    data: how they become batches.
    epoch: records of one.
    batch_size: rows over all processes.
    readers: shares that a batch is read in.
  """
  bound = ""
  if data.pack:
    bound = "each packs the records dealt to it, and which go into a row depends on those"
  elif data.group and epoch % batch_size:
    bound = (
      f"the last batch of an epoch of {epoch} records, no multiple of batch_size {batch_size}, "
      "is filled up with records that depend on it (data.group)"
    )
  return Dealing(readers, bool(data.lengths) and not data.pack, bound)
