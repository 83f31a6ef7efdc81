"""Names of slices."""

import pytest

from eagle_jax.errors import EagleError
from eagle_jax.plan import slices


@pytest.mark.parametrize(
  ("name", "topology", "chips"),
  [
    ("v5e-16", "v5e:4x4", 16),
    ("v5e-256", "v5e:16x16", 256),
    ("v6e-256", "v6e:16x16", 256),
    ("v4-128", "v4:4x4x4", 64),
    ("v5p-128", "v5p:4x4x4", 64),
  ],
)
def test_a_name_counts_chips_or_cores(name, topology, chips):
  found = slices.parse(name)
  assert (found.topology, found.chips) == (topology, chips)


def test_several_slices_have_the_chips_of_all():
  two = slices.parse("v5e-16", 2)
  assert (two.chips, two.topology, str(two)) == (32, "v5e:4x4", "2 × v5e-16")


def test_links_add_up():
  assert slices.CHIPS["v5p"].send_rate == 600e9
  assert slices.CHIPS["v5e"].send_rate == 200e9


@pytest.mark.parametrize(
  ("name", "match"),
  [("v5x-16", "TPU generation"), ("v5e-17", "size of v5e"), ("v5e", "a generation and a size")],
)
def test_what_is_no_slice_is_refused(name, match):
  with pytest.raises(EagleError, match=match):
    slices.parse(name)
