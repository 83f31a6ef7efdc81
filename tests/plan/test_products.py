"""Counting products in a program."""

import jax
import jax.numpy as jnp
import pytest

from eagle_jax.plan import hlo, products


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
