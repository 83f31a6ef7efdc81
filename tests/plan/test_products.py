"""Counting products in a trace and in a program."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from eagle_jax.plan import hlo, products


def traced(function, *shapes):
  return products.of_trace(jax.make_jaxpr(function)(*(np.zeros(s, np.float32) for s in shapes)))


def test_loops_and_batches_of_a_trace_are_multiplied():
  def layers(x, weights):
    return jax.lax.scan(lambda x, w: (jnp.einsum("bnc,cd->bnd", x, w), None), x, weights)[0]

  assert traced(layers, (2, 3, 8), (5, 8, 8)) == 5 * 2 * (2 * 3) * 8 * 8


def test_what_is_done_again_counts_again():
  def loss(x, w):
    return jnp.sum(jnp.tanh(jnp.tanh(x @ w) @ w))

  once = 2 * 4 * 8 * 8
  assert traced(jax.value_and_grad(loss, argnums=1), (4, 8), (8, 8)) == once * (2 + 1 + 2)
  again = jax.value_and_grad(jax.checkpoint(loss), argnums=1)
  assert traced(again, (4, 8), (8, 8)) > once * (2 + 1 + 2)


def convolve(x, kernel, stride, padding, groups):
  numbers = ("NHWC", "HWIO", "NHWC")
  return jax.lax.conv_general_dilated(
    x, kernel, (stride, stride), padding, dimension_numbers=numbers, feature_group_count=groups
  )


@pytest.mark.parametrize(
  ("kernel", "groups", "side", "channels"), [((3, 3, 4, 6), 1, 6, 4), ((3, 3, 1, 4), 4, 6, 1)]
)
def test_convolutions_count_what_is_multiplied(kernel, groups, side, channels):
  def full(x, k):
    return convolve(x, k, 1, "VALID", groups)

  expected = 2 * 2 * side * side * kernel[3] * 9 * channels
  shapes = ((2, 8, 8, 4), kernel)
  assert traced(full, *shapes) == expected
  arguments = [jax.ShapeDtypeStruct(shape, jnp.float32) for shape in shapes]
  program = hlo.parse(jax.jit(full).lower(*arguments).compile().as_text())
  assert products.of_program(program) == expected


PROGRAM = """
ENTRY %main (x: f32[4,8], k: f32[8,6]) -> f32[4,6] {{
  %x = {left} parameter(0)
  %k = {right} parameter(1)
  ROOT %y = {out} convolution(%x, %k), {attributes}
}}
"""


@pytest.mark.parametrize(
  ("left", "right", "out", "attributes", "expected"),
  [
    # A product as TPU's compiler writes it, and one of a batch of 16 heads.
    ("f32[4,8]", "f32[8,6]", "f32[4,6]", "dim_labels=bf_io->bf", 2 * 4 * 8 * 6),
    (
      "bf16[16,32,9]",
      "bf16[16,9,5]",
      "bf16[16,32,5]",
      "window={size=16 stride=15 lhs_dilate=16}, dim_labels=0bf_0io->0bf",
      2 * 16 * 32 * 9 * 5,
    ),
    # One cell of padding on either side: the corner cells meet fewer cells.
    (
      "f32[1,4,4,1]",
      "f32[3,3,1,1]",
      "f32[1,4,4,1]",
      "window={size=3x3 pad=1_1x1_1}, dim_labels=b01f_01io->b01f",
      2 * 10 * 10,
    ),
    # The gradient of a depthwise kernel: pictures become channels of the kernel.
    (
      "f32[1,8,2]",
      "f32[1,6,2]",
      "f32[2,3,1]",
      "window={size=6}, dim_labels=f0b_i0o->f0b, batch_group_count=2",
      2 * 3 * 6 * 2,
    ),
  ],
)
def test_convolutions_of_a_program(left, right, out, attributes, expected):
  text = PROGRAM.format(left=left, right=right, out=out, attributes=attributes)
  assert products.of_program(hlo.parse(text)) == expected
