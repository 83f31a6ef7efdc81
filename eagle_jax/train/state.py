"""Everything a run of training carries from step to step."""

from __future__ import annotations

import typing
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import optax
from flax import struct, traverse_util
from jax.sharding import NamedSharding, PartitionSpec

from eagle_jax import config
from eagle_jax.model import eagle as eagle_lib
from eagle_jax.sharding import rules
from eagle_jax.train import stages

if typing.TYPE_CHECKING:
  from jaxtyping import Array, Int, UInt32

Abstract = dict[str, jax.ShapeDtypeStruct]


@struct.dataclass
class TrainState:
  """Attributes:
  step: updates done.
  trained: '/'-joined path → array in `param_dtype`; these have gradients.
  frozen: path → array in `frozen_dtype`.
  opt_state: moments of the trained parameters.
  rng: key data; whatever draws at step n folds n into it.
  """

  step: Int[Array, ""]
  trained: dict[str, Array]
  frozen: dict[str, Array]
  opt_state: Any
  rng: UInt32[Array, "key=2"]

  def params(self) -> dict[str, Array]:
    """Returns all parameters by path."""
    return {**self.trained, **self.frozen}


def nested(params: Mapping[str, Any]) -> dict[str, Any]:
  """Returns the nested dict that the modules take, from '/'-joined paths."""
  return traverse_util.unflatten_dict(dict(params), sep="/")


def abstract_params(
  eagle: eagle_lib.Eagle,
  experiment: config.Experiment,
  chosen: Mapping[str, stages.Treatment],
  *,
  mesh: jax.sharding.Mesh,
) -> Abstract:
  """Returns shape, dtype and sharding of every parameter, by path; allocates nothing.

  Args:
    eagle: the model.
    experiment: names the dtypes, and what every device holds whole.
    chosen: path → treatment.
    mesh: the devices.
  """
  flat = traverse_util.flatten_dict(eagle_lib.abstract_params(eagle), sep="/")
  shapes = {path: leaf.shape for path, leaf in flat.items()}
  placed = rules.shardings(shapes, mesh, experiment.mesh.whole)
  settings = experiment.model
  kinds = {True: jnp.dtype(settings.param_dtype), False: jnp.dtype(settings.frozen_dtype)}
  return {
    path: jax.ShapeDtypeStruct(leaf.shape, kinds[chosen[path].trained], sharding=placed[path])
    for path, leaf in flat.items()
  }


def initialise(eagle: eagle_lib.Eagle, wanted: Abstract, seed: int) -> dict[str, Array]:
  """Draws parameters at random, straight into their shardings.

  Args:
    eagle: the model, whose modules name the distributions.
    wanted: the paths to draw; no other parameter is allocated.
    seed: of the generator.
  """
  if not wanted:
    return {}

  def draw(key: Array) -> dict[str, Array]:
    """Initialises the model and keeps what is wanted; the compiler drops the rest."""
    flat = traverse_util.flatten_dict(eagle_lib.init_params(eagle, key), sep="/")
    return {path: flat[path].astype(leaf.dtype) for path, leaf in wanted.items()}

  placed = {path: leaf.sharding for path, leaf in wanted.items()}
  return jax.jit(draw, out_shardings=placed)(jax.random.key(seed))


def create(
  params: Mapping[str, Array],
  chosen: Mapping[str, stages.Treatment],
  tx: optax.GradientTransformation,
  *,
  seed: int,
  mesh: jax.sharding.Mesh,
) -> TrainState:
  """Returns the state before the first update."""
  trained = {path: array for path, array in params.items() if chosen[path].trained}
  everywhere = NamedSharding(mesh, PartitionSpec())
  return TrainState(
    step=jax.device_put(jnp.int32(0), everywhere),
    trained=trained,
    frozen={path: array for path, array in params.items() if not chosen[path].trained},
    opt_state=_place_moments(tx.init(trained), everywhere),
    rng=jax.device_put(jax.random.key_data(jax.random.key(seed)), everywhere),
  )


def _place_moments(opt_state: Any, everywhere: NamedSharding) -> Any:
  """Puts the optimizer's counters on every device; moments already lie as their parameters."""

  def place(leaf: Array) -> Array:
    """Copies scalars only."""
    return jax.device_put(leaf, everywhere) if leaf.ndim == 0 else leaf

  return jax.tree.map(place, opt_state)


def paths(eagle: eagle_lib.Eagle) -> tuple[str, ...]:
  """Returns the '/'-joined paths of all parameters of a model."""
  return tuple(traverse_util.flatten_dict(eagle_lib.abstract_params(eagle), sep="/"))


def abstract_state(
  abstract: Abstract,
  chosen: Mapping[str, stages.Treatment],
  tx: optax.GradientTransformation,
  *,
  mesh: jax.sharding.Mesh,
) -> TrainState:
  """Returns the shapes, dtypes and shardings of `create`'s result, allocating nothing."""
  everywhere = NamedSharding(mesh, PartitionSpec())
  trained = {path: leaf for path, leaf in abstract.items() if chosen[path].trained}
  moments = jax.eval_shape(tx.init, trained)

  def place(key_path: tuple[Any, ...], leaf: jax.ShapeDtypeStruct) -> jax.ShapeDtypeStruct:
    """Moments lie as the parameter whose path ends theirs; counters lie everywhere."""
    name = getattr(key_path[-1], "key", None)
    sharding = trained[name].sharding if name in trained else everywhere
    return jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=sharding)

  fields: dict[str, Any] = {
    "step": jax.ShapeDtypeStruct((), jnp.int32, sharding=everywhere),
    "trained": trained,
    "frozen": {path: leaf for path, leaf in abstract.items() if not chosen[path].trained},
    "opt_state": jax.tree_util.tree_map_with_path(place, moments),
    "rng": jax.ShapeDtypeStruct((2,), jnp.uint32, sharding=everywhere),
  }
  return TrainState(**fields)


def beside_params(state: TrainState) -> dict[str, Any]:
  """Returns everything of a state but the parameters, as the nested dict a checkpoint keeps."""
  leaves, _ = jax.tree_util.tree_flatten_with_path((state.step, state.rng, state.opt_state))
  return nested({_name(key_path): leaf for key_path, leaf in leaves})


def from_parts(
  params: Mapping[str, Any], beside: Mapping[str, Any], like: TrainState
) -> TrainState:
  """Returns the state whose `params` and `beside_params` these are.

  Args:
    params: '/'-joined path → array.
    beside: what `beside_params` gave.
    like: a state of the same structure, such as `abstract_state` returns.
  """
  flat = traverse_util.flatten_dict(dict(beside), sep="/")
  leaves, treedef = jax.tree_util.tree_flatten_with_path((like.step, like.rng, like.opt_state))
  found = jax.tree_util.tree_unflatten(treedef, [flat[_name(key_path)] for key_path, _ in leaves])
  return TrainState(
    step=found[0],
    trained={path: params[path] for path in like.trained},
    frozen={path: params[path] for path in like.frozen},
    opt_state=found[2],
    rng=found[1],
  )


def _name(key_path: tuple[Any, ...]) -> str:
  """A leaf's place in the state as a '/'-joined path, such as '2/0/mu/projector/layer_0/bias'."""
  return "/".join(
    str(next(getattr(key, a) for a in ("key", "name", "idx") if hasattr(key, a)))
    for key in key_path
  )
