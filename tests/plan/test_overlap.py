"""What runs beside products, by the order of a program's text."""

import pytest

from eagle_jax.plan import hlo, overlap

PRODUCT = "%y = f32[8] fusion(%p), kind=kOutput, calls=%product"
PROGRAM = """
%product (p: f32[8]) -> f32[8] {{
  %p = f32[8] parameter(0)
  ROOT %y = f32[8] convolution(%p, %p), dim_labels=bf_io->bf
}}

%begin (p: f32[8]) -> f32[32] {{
  %p = f32[8] parameter(0)
  %g = f32[32] all-gather(%p), channel_id=7, dimensions={{0}}
  ROOT %start = (f32[8], f32[32]) custom-call(%g), custom_call_target="AsyncCollectiveStart"
}}

%end (p: f32[8]) -> f32[32] {{
  %p = f32[8] parameter(0)
  %g = f32[32] all-gather(%p), channel_id=7, dimensions={{0}}
  ROOT %done = f32[32] custom-call(%g), custom_call_target="AsyncCollectiveDone"
}}

ENTRY %main (p: f32[8]) -> f32[32] {{
  %p = f32[8] parameter(0)
  {0}
  %s = (f32[8], f32[32]) fusion(%p), kind=kCustom, calls=%begin
  %z = f32[8] add(%p, %p)
  {1}
  %d = f32[32] fusion(%s), kind=kCustom, calls=%end
  %t = (f32[8], f32[32]) all-gather-start(%p), channel_id=9, dimensions={{0}}
  {2}
  %u = f32[32] all-gather-done(%t)
  {3}
  ROOT %out = f32[32] add(%d, %u)
}}
"""


@pytest.mark.parametrize(
  ("place", "expected"), [(0, set()), (1, {"7"}), (2, {"9"}), (3, set()), (None, set())]
)
def test_only_a_product_in_between_hides_a_collective(place, expected):
  text = PROGRAM.format(*(PRODUCT if n == place else "" for n in range(4)))
  assert overlap.hidden(hlo.parse(text)) == expected
