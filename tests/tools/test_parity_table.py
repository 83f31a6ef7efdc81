"""The table of measured errors: of each golden the comparison nearest to its limit."""

import pytest

from tests.parity.measured import Measured
from tools import parity_table


def test_the_comparison_nearest_to_its_limit_stands_for_its_golden():
  found = parity_table.worst(
    [
      Measured("b", "x", 9e-7, 1e-5),
      Measured("b", "x@stat", 3e-7, 1e-6),
      Measured("a", "y", 0.0, 1.0),
    ]
  )
  assert [(m.golden, m.tensor, count) for m, count in found] == [("a", "y", 1), ("b", "x@stat", 2)]


@pytest.mark.parametrize("errors", [(float("nan"), 1.0), (1.0, float("nan"))])
def test_nothing_is_worse_than_a_nan(errors):
  measured = [Measured("a", "x", error, 2.0) for error in errors]
  assert "nan **beyond**" in parity_table.rows(measured)[-1]


def test_rows_say_unit_and_breach():
  rows = parity_table.rows(
    [Measured("a", "loss", 1e-6, 2e-6, absolute=True), Measured("b", "x", 2e-6, 1e-6)]
  )
  assert rows[2:] == [
    "| a | 1 | `loss` | 1.0e-06 abs | 2.0e-06 abs |",
    "| b | 1 | `x` | 2.0e-06 **beyond** | 1.0e-06 |",
  ]
