import functools

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from eagle_jax.errors import EagleError
from eagle_jax.nn.layout import Layout
from eagle_jax.nn.stack import Blocks, apply_blocks, block_output

WIDTH = 4
STACKS = ["wwgwwg", "wwgw", "bbb", "g", "wgwwgww"]


class Block(nn.Module):
  """A residual step; what tells its kind is the operand that windowed ones add."""

  kind: str
  size: int
  dtype: type

  @nn.compact
  def __call__(self, x, operand):
    x = x + jnp.tanh(nn.Dense(self.size, dtype=self.dtype, name="dense")(x))
    x = x if operand is None else x + operand["shift"][None]
    self.sow("probes", "block", x)
    return x, None


class Stack(nn.Module):
  kinds: tuple[str, ...]
  remat: str = "none"

  @nn.compact
  def __call__(self, x):
    operands = {"w": {"shift": jnp.arange(WIDTH, dtype=jnp.float32)}}
    blocks = Blocks(Block, WIDTH, jnp.float32, self.remat)
    return apply_blocks(Layout(self.kinds), blocks, x, operands=operands)


@functools.cache
def case(kinds):
  stack = Stack(tuple(kinds))
  x = jax.random.normal(jax.random.key(1), (2, WIDTH))
  return stack, x, jax.jit(stack.init)(jax.random.key(0), x)["params"]


def leaf(params, layout, n, name):
  path, index = layout.place(n)
  for part in path.split("/"):
    params = params[part]
  return params["dense"][name][index]


def by_hand(kinds, params, x):
  """Every block's output from a plain loop over slots."""
  outputs = []
  for n, kind in enumerate(kinds):
    dense = x @ leaf(params, Layout(tuple(kinds)), n, "kernel")
    x = x + jnp.tanh(dense + leaf(params, Layout(tuple(kinds)), n, "bias")[None])
    if kind == "w":
      x = x + jnp.arange(WIDTH, dtype=jnp.float32)[None]
    outputs.append(x)
  return outputs


@pytest.mark.parametrize("kinds", STACKS)
def test_equals_a_loop_over_slots_and_probes_every_block(kinds):
  stack, x, params = case(kinds)
  out, sown = stack.apply({"params": params}, x, mutable=["probes"])
  expected = by_hand(kinds, params, x)
  np.testing.assert_allclose(out, expected[-1], rtol=1e-6)
  for n, output in enumerate(expected):
    found = block_output(sown["probes"], Layout(tuple(kinds)), n)
    np.testing.assert_allclose(found, output, rtol=1e-6)


def test_parameters_are_stacked_and_drawn_apart():
  _, _, params = case("wwgw")
  shapes = jax.tree.map(jnp.shape, params)
  dense = lambda *axes: {"dense": {"kernel": (*axes, WIDTH, WIDTH), "bias": (*axes, WIDTH)}}
  assert shapes == {
    "groups": {"run_0": dense(1, 2), "run_1": dense(1, 1)},
    "rest": {"run_0": dense(1)},
  }
  kernels = [leaf(params, Layout(tuple("wwgw")), n, "kernel") for n in range(4)]
  assert all(jnp.any(kernels[i] != kernels[j]) for i in range(4) for j in range(i))


def test_groups_are_drawn_apart():
  _, _, params = case("wwgwwg")
  kernels = params["groups"]["run_0"]["dense"]["kernel"]
  assert jnp.any(kernels[0, 0] != kernels[1, 0])


def test_nothing_is_sown_unless_asked_for():
  stack, x, params = case("wwgw")
  assert stack.apply({"params": params}, x).shape == x.shape


@pytest.mark.parametrize("kinds", ["wwgw", "bbb"])
def test_rematerialising_changes_no_gradient(kinds):
  stack, x, params = case(kinds)

  def loss(remat, params):
    return jnp.sum(stack.clone(remat=remat).apply({"params": params}, x) ** 2)

  kept, again = (jax.grad(functools.partial(loss, remat))(params) for remat in ("none", "block"))
  jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-6), kept, again)


def test_rematerialising_keeps_less_for_the_backward_pass():
  stack, x, params = case("bbb")

  def residuals(remat):
    apply = lambda p: stack.clone(remat=remat).apply({"params": p}, x)
    _, backward = jax.vjp(apply, params)
    return sum(leaf.size for leaf in jax.tree.leaves(backward))

  assert residuals("block") < residuals("none")


def test_unknown_policy_names_the_nearest():
  stack, x, params = case("bbb")
  with pytest.raises(EagleError, match="did you mean 'block'"):
    stack.clone(remat="blocks").apply({"params": params}, x)
