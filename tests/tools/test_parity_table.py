"""The table of measured errors: the worst of each tensor, failures marked."""

import pytest

from tests.parity.measured import Measured
from tools import parity_table


def test_the_worst_of_values_and_statistics_is_shown_once():
  found = parity_table.worst(
    [Measured("b", "x", 1e-7, 1e-6), Measured("b", "x@stat", 3e-7, 1e-6), Measured("a", "y", 0, 1)]
  )
  assert [(m.golden, m.tensor, m.error) for m in found] == [("a", "y", 0), ("b", "x@stat", 3e-7)]


@pytest.mark.parametrize("errors", [(float("nan"), 1.0), (1.0, float("nan"))])
def test_nothing_is_worse_than_a_nan(errors):
  measured = [Measured("a", "x", error, 2.0) for error in errors]
  assert "nan **beyond**" in parity_table.rows(measured)[-1]


def test_rows_say_unit_and_breach():
  rows = parity_table.rows(
    [Measured("a", "loss", 1e-6, 2e-6, absolute=True), Measured("a", "x@stat", 2e-6, 1e-6)]
  )
  assert rows[2:] == [
    "| a | loss | 1.0e-06 abs | 2.0e-06 abs |",
    "| a | x | 2.0e-06 **beyond** | 1.0e-06 |",
  ]
