"""What the processes of a run tell each other about its checkpoints."""

from __future__ import annotations

import jax
import numpy as np
from jax.experimental import multihost_utils


def is_primary() -> bool:
  """Whether this process is the one that names, renames and removes folders."""
  return jax.process_index() == 0


def gather(text: str) -> list[str]:
  """Returns what every process says, in their order.

  Every process must call it, in the same place of the program: none goes on before all
  have. It uses the devices, so it belongs to the thread that trains.
  """
  if jax.process_count() == 1:
    return [text]
  data = np.frombuffer(text.encode(errors="replace"), np.uint8)
  lengths = multihost_utils.process_allgather(np.int32(data.size))  # [processes]
  padded = np.zeros(max(1, int(lengths.max())), np.uint8)
  padded[: data.size] = data
  rows = multihost_utils.process_allgather(padded)  # [processes, longest]
  return [bytes(row[:size]).decode() for row, size in zip(rows, lengths, strict=True)]
