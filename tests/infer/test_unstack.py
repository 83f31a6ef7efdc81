import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import AxisType, NamedSharding, PartitionSpec

from eagle_jax.infer.unstack import unstack


def stacked():
  kernel = np.arange(24, dtype=np.float32).reshape(3, 2, 4)
  return {
    "embed": {"embedding": np.ones((5, 2))},
    "layers": {"mlp": {"up": {"kernel": kernel}}, "mlp_norm": {"scale": np.ones((3, 2))}},
  }


def test_every_layer_gets_its_slice_and_the_rest_stays():
  params = stacked()
  out = unstack(params)
  assert sorted(out) == ["embed", "layers_0", "layers_1", "layers_2"]
  assert out["embed"] is params["embed"]
  for n in range(3):
    np.testing.assert_array_equal(
      out[f"layers_{n}"]["mlp"]["up"]["kernel"], params["layers"]["mlp"]["up"]["kernel"][n]
    )
    assert out[f"layers_{n}"]["mlp_norm"]["scale"].shape == (2,)
  assert sorted(params) == ["embed", "layers"]


def test_numpy_leaves_are_not_copied():
  params = stacked()
  out = unstack(params)
  kernel = params["layers"]["mlp"]["up"]["kernel"]
  assert np.shares_memory(out["layers_1"]["mlp"]["up"]["kernel"], kernel)


def test_device_leaves_keep_the_sharding_of_their_other_axes():
  mesh = jax.make_mesh((2, 4), ("fsdp", "tensor"), axis_types=(AxisType.Auto,) * 2)
  spec = PartitionSpec(None, "fsdp", "tensor")
  kernel = jax.device_put(jnp.zeros((3, 2, 4)), NamedSharding(mesh, spec))
  out = unstack({"layers": {"kernel": kernel}})
  found = out["layers_2"]["kernel"].sharding
  assert found.is_equivalent_to(NamedSharding(mesh, PartitionSpec("fsdp", "tensor")), 2)
