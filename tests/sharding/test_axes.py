"""Devices along each axis."""

import pytest

from eagle_jax import config
from eagle_jax.errors import EagleError
from eagle_jax.sharding import axes


def test_minus_one_takes_what_the_others_leave():
  found = axes.sizes(config.Mesh(data=2, tensor=4), 256)
  assert found == {"data": 2, "fsdp": 32, "tensor": 4, "sequence": 1}
  assert tuple(found) == axes.AXES


@pytest.mark.parametrize("devices", [7, 2])
def test_axes_that_do_not_multiply_to_the_devices_are_refused(devices):
  with pytest.raises(EagleError, match=f"tensor=4, sequence=1 and {devices} devices"):
    axes.sizes(config.Mesh(tensor=4), devices)
