"""Reading the text of compiled programs."""

import pytest

from eagle_jax.errors import EagleError
from eagle_jax.plan import hlo

NESTED = """
HloModule nested, is_scheduled=true

%inner_body (p: (s32[], bf16[4,8])) -> (s32[], bf16[4,8]) {
  %p = (s32[], bf16[4,8]{1,0:T(8,128)(2,1)}) parameter(0)
  %i = s32[] get-tuple-element(%p), index=0
  %two = s32[]{:T(128)} constant(2)
  %next = s32[] add(%i, %two)
  %x = bf16[4,8]{1,0} get-tuple-element(%p), index=1
  %y = bf16[4,8]{1,0} fusion(%x), kind=kLoop, calls=%inside, metadata={op_name="jit(f)/mul"}
  ROOT %t = (s32[], bf16[4,8]{1,0}) tuple(%next, %y)
}

%inside (x: bf16[4,8]) -> bf16[4,8] {
  ROOT %x = bf16[4,8]{1,0} parameter(0)
}

%inner_until (p: (s32[], bf16[4,8])) -> pred[] {
  %limit = s32[]{:T(128)} constant(7)
  %p = (s32[], bf16[4,8]{1,0}) parameter(0)
  %i = s32[] get-tuple-element(%p), index=0
  ROOT %lt = pred[] compare(%i, %limit), direction=LT
}

%outer_body (p: (s32[], bf16[4,8])) -> (s32[], bf16[4,8]) {
  %p = (s32[], bf16[4,8]{1,0}) parameter(0)
  %one = s32[] constant(1)
  %start = s32[] copy(%one)
  %x = bf16[4,8]{1,0} get-tuple-element(%p), index=1
  %given = (s32[], /*index=1*/bf16[4,8]{1,0}) tuple(%start, %x)
  ROOT %w = (s32[], bf16[4,8]{1,0}) while(%given), condition=%inner_until, body=%inner_body
}

%outer_until (p: (s32[], bf16[4,8])) -> pred[] {
  ROOT %p = (s32[], bf16[4,8]{1,0}) parameter(0)
}

ENTRY %main (x: bf16[4,8]) -> bf16[4,8] {
  %x = bf16[4,8]{1,0} parameter(0)
  %zero = s32[] constant(0)
  %given = (s32[], bf16[4,8]{1,0}) tuple(%zero, %x)
  %w = (s32[], bf16[4,8]{1,0}) while(%given), condition=%outer_until, body=%outer_body,
 backend_config={"known_trip_count":{"n":"5"}}
  ROOT %out = bf16[4,8]{1,0} get-tuple-element(%w), index=1
}
""".replace(",\n backend", ", backend")


def test_instructions_are_taken_apart():
  program = hlo.parse(NESTED)
  body = program.computations["inner_body"]
  fused = body.instructions["y"]
  assert (fused.opcode, fused.operands, fused.shape) == ("fusion", ("x",), "bf16[4,8]{1,0}")
  assert fused.attribute("calls") == "inside"
  assert fused.text("op_name") == "jit(f)/mul"
  assert body.root == "t"
  assert program.entry == "main"


def test_bytes_of_types():
  found = hlo.shapes("(bf16[4,8]{1,0:T(8,128)(2,1)S(1)}, /*index=1*/pred[3], u32[]{:S(2)}, s4[6])")
  assert found == (("bf16", (4, 8)), ("pred", (3,)), ("u32", ()), ("s4", (6,)))
  assert [hlo.num_bytes(shape) for shape in found] == [64, 3, 4, 3]
  assert hlo.num_bytes(("f8e4m3fn", (2, 5))) == 10


def test_a_loop_is_counted_from_its_start_its_limit_and_its_step():
  program = hlo.parse(NESTED)
  outer = program.computations["outer_body"]
  assert hlo.trip_count(program, outer, outer.instructions["w"]) == 3  # 1, 3, 5


def test_a_loop_whose_length_is_not_told_has_none():
  program = hlo.parse(NESTED.replace('{"n":"5"}', "{}"))
  main = program.computations["main"]
  assert hlo.trip_count(program, main, main.instructions["w"]) is None


def test_what_runs_in_nested_loops_is_multiplied():
  seen = {visit.computation.name: visit for visit in hlo.visits(hlo.parse(NESTED))}
  assert {name: visit.times for name, visit in seen.items()} == {
    "main": 1,
    "outer_body": 5,
    "inner_body": 15,
    "inside": 15,
  }
  assert seen["inside"].caller.name == "y"
  assert seen["inner_body"].caller is None


def test_other_text_is_refused():
  with pytest.raises(EagleError, match="ENTRY"):
    hlo.parse("no program")
