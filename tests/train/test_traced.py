"""Operations of traced functions, against counts by hand."""

import jax
import jax.numpy as jnp

from eagle_jax.train import traced


def count(function, *shapes):
  return traced.of_trace(jax.make_jaxpr(function)(*(jnp.zeros(shape) for shape in shapes)))


def test_a_loop_of_products_counts_every_turn():
  def stack(x, kernels):
    return jax.lax.scan(lambda x, kernel: (jax.jit(jnp.dot)(x, kernel), None), x, kernels)[0]

  assert count(stack, (5, 4), (7, 4, 4)) == 7 * 2 * 5 * 4 * 4


def test_the_gradient_of_what_is_trained_alone_counts():
  def loss(first, second, x):
    return jnp.sum(x @ first @ second)

  forward = 2 * 6 * (4 * 3 + 3 * 2)
  shapes = (4, 3), (3, 2), (6, 4)
  assert count(loss, *shapes) == forward
  assert count(jax.value_and_grad(loss, 1), *shapes) == forward + 2 * 6 * 3 * 2


def test_the_costlier_branch_counts():
  def either(x):
    return jax.lax.cond(x[0, 0] > 0, lambda y: y @ y @ y, lambda y: y @ y, x)

  assert count(either, (4, 4)) == 2 * 2 * 4**3


def test_a_grouped_convolution_counts_what_each_channel_sees():
  def convolve(x, kernel):
    return jax.lax.conv_general_dilated(
      x, kernel, (2, 2), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC"), feature_group_count=6
    )

  assert count(convolve, (1, 8, 8, 6), (3, 3, 1, 6)) == 2 * 4 * 4 * 6 * 9
