"""Activations held to the mesh: what is asked for, and what divides."""

import jax
import jax.numpy as jnp
import pytest
from jax.sharding import PartitionSpec

from eagle_jax import config
from eagle_jax.sharding import activations
from eagle_jax.sharding.mesh import make_mesh


def held(shape, *names, **sides):
  mesh = make_mesh(config.Mesh(**sides))

  def function(x):
    return activations.hold(x, *names)

  with jax.set_mesh(mesh):
    return jax.jit(function)(jnp.zeros(shape)).sharding.spec


def test_rows_and_tokens_go_over_their_axes_and_channels_stay_whole():
  spec = held((4, 6, 8), "rows", "tokens", data=2, fsdp=2, sequence=2)
  assert spec == PartitionSpec(("data", "fsdp"), "sequence")


def test_pictures_take_the_sequence_axis_where_they_are_many_enough():
  assert held((8, 3), "pictures", fsdp=4, sequence=2)[0] == ("fsdp", "sequence")
  assert held((4, 3), "pictures", fsdp=4, sequence=2)[0] == "fsdp"


@pytest.mark.parametrize(("rows", "expected"), [(6, "data"), (3, None)])
def test_an_axis_that_does_not_divide_is_left_out_with_all_after_it(rows, expected):
  spec = held((rows, 8), "rows", data=2, fsdp=4)
  assert (spec[0] if spec else None) == expected


def test_without_a_mesh_nothing_is_held():
  x = jnp.zeros((4, 3))
  assert activations.hold(x, "rows") is x
