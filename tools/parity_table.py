"""Prints how closely every golden file is met, as a Markdown table for docs/numerics.md.

Runs tests/parity and names, for each golden, the comparison that came nearest to its limit:

  python tools/parity_table.py > table.md

EAGLE_GOLDENS chooses the folder of golden files, EAGLE_FULL=1 adds the released sizes;
arguments go to pytest, as in `-k clip`.
"""

import collections
import contextlib
import math
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
sys.path.insert(0, str(ROOT))

from tests.parity.measured import MEASURED, Measured  # noqa: E402 (needs the path above)


def worst(measured: Sequence[Measured]) -> list[tuple[Measured, int]]:
  """Returns, for each golden, the comparison nearest to its limit and how many there were."""
  counted = collections.Counter(one.golden for one in measured)
  found: dict[str, Measured] = {}
  # The last of a golden stays; NaN sorts behind every number.
  for one in sorted(measured, key=lambda m: (math.isnan(m.error), m.error / max(m.limit, 1e-30))):
    found[one.golden] = one
  return [(found[golden], counted[golden]) for golden in sorted(found)]


def rows(measured: Sequence[Measured]) -> list[str]:
  """Returns the lines of the table."""
  lines = [
    "| golden | comparisons | nearest to its limit | measured | limit |",
    "| --- | --- | --- | --- | --- |",
  ]
  for one, count in worst(measured):
    unit = " abs" if one.absolute else ""
    beyond = "" if one.error <= one.limit else " **beyond**"
    error, limit = f"{one.error:.1e}{unit}{beyond}", f"{one.limit:.1e}{unit}"
    lines.append(f"| {one.golden} | {count} | `{one.tensor}` | {error} | {limit} |")
  return lines


def main() -> int:
  """Runs the comparisons; the exit status is that of the tests."""
  with contextlib.redirect_stdout(sys.stderr):
    status = pytest.main([str(ROOT / "tests" / "parity"), *sys.argv[1:]])
  print("\n".join(rows(MEASURED)))
  return int(status)


if __name__ == "__main__":
  sys.exit(main())
