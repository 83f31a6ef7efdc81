"""Prints how closely every golden file is met, as a Markdown table for docs/numerics.md.

Runs tests/parity and lists what its comparisons measured, the worst of each tensor:

  python tools/parity_table.py > table.md

EAGLE_GOLDENS chooses the folder of golden files, EAGLE_FULL=1 adds the released sizes;
arguments go to pytest, as in `-k clip`.
"""

import contextlib
import math
import sys
from collections.abc import Iterable
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
sys.path.insert(0, str(ROOT))

from tests.parity.measured import MEASURED, Measured  # noqa: E402 (needs the path above)


def worst(measured: Iterable[Measured]) -> list[Measured]:
  """Returns the largest error of each tensor, statistics counted with their tensor."""
  found: dict[tuple[str, str], Measured] = {}
  # The last of a tensor stays; NaN sorts behind every number.
  for one in sorted(measured, key=lambda m: (math.isnan(m.error), m.error)):
    found[one.golden, one.tensor.removesuffix("@stat")] = one
  return [found[key] for key in sorted(found)]


def rows(measured: Iterable[Measured]) -> list[str]:
  """Returns the lines of the table."""
  lines = ["| golden | tensor | measured | limit |", "| --- | --- | --- | --- |"]
  for one in worst(measured):
    unit = " abs" if one.absolute else ""
    beyond = "" if one.error <= one.limit else " **beyond**"
    tensor = one.tensor.removesuffix("@stat")
    lines.append(
      f"| {one.golden} | {tensor} | {one.error:.1e}{unit}{beyond} | {one.limit:.1e}{unit} |"
    )
  return lines


def main() -> int:
  """Runs the comparisons; the exit status is that of the tests."""
  with contextlib.redirect_stdout(sys.stderr):
    status = pytest.main([str(ROOT / "tests" / "parity"), *sys.argv[1:]])
  print("\n".join(rows(MEASURED)))
  return int(status)


if __name__ == "__main__":
  sys.exit(main())
