"""A mesh of all three axes, and an array that lies on it."""

import jax
import numpy as np
import pytest
from jax.sharding import NamedSharding, PartitionSpec

from eagle_jax import config
from eagle_jax.sharding.mesh import make_mesh


@pytest.fixture
def mesh():
  return make_mesh(config.Mesh(data=2, fsdp=2, tensor=2))


@pytest.fixture
def placed(mesh):
  """Returns a function: axes of the mesh → 64 numbers [8, 8] sharded over them."""

  def place(*axes):
    sharding = NamedSharding(mesh, PartitionSpec(*axes))
    return jax.device_put(np.arange(64, dtype=np.float32).reshape(8, 8), sharding)

  return place
