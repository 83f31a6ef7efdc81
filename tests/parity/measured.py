"""What the comparisons with golden files measured, for tests and tools/parity_table.py alike."""

import dataclasses


@dataclasses.dataclass(frozen=True)
class Measured:
  """One comparison: the error found and the limit it is held to."""

  golden: str
  tensor: str
  error: float
  limit: float
  absolute: bool = False  # else relative l2


MEASURED: list[Measured] = []
"""Every comparison of this process, in order."""
