"""Exchanges between devices, on programs whose traffic is known."""

import jax
import jax.numpy as jnp
import pytest
from jax.sharding import AxisType, NamedSharding, PartitionSpec

from eagle_jax.plan import collectives, hlo, products

LAYERS, WIDTH, ROWS = 5, 64, 16


@pytest.fixture(scope="module")
def scanned():
  """Gradient of a scan over layers whose weights [L, D, D] are gathered one at a time."""
  mesh = jax.make_mesh((8,), ("fsdp",), axis_types=(AxisType.Auto,))

  def placed(*spec):
    return NamedSharding(mesh, PartitionSpec(*spec))

  def loss(weights, x):
    def layer(x, weight):
      whole = jax.lax.with_sharding_constraint(weight, placed())
      return jnp.tanh(x @ whole), None

    return jnp.sum(jax.lax.scan(layer, x, weights)[0])

  weights = jax.ShapeDtypeStruct((LAYERS, WIDTH, WIDTH), jnp.float32, sharding=placed(None, "fsdp"))
  x = jax.ShapeDtypeStruct((ROWS, WIDTH), jnp.float32, sharding=placed("fsdp"))
  return hlo.parse(jax.jit(jax.value_and_grad(loss)).lower(weights, x).compile().as_text())


def test_a_gather_in_a_scan_counts_once_per_layer(scanned):
  found = collectives.find(scanned, {"fsdp": 8})
  gathers = [one for one in found if one.kind == "all-gather"]
  assert sum(one.times for one in gathers) == LAYERS
  assert {one.sent for one in gathers} == {4 * WIDTH * WIDTH * 7 // 8}
  assert {(one.axes, one.size, one.looped) for one in gathers} == {(("fsdp",), 8, True)}


def test_sums_of_an_axis_are_by_kind(scanned):
  sums = collectives.per_axis(collectives.find(scanned, {"fsdp": 8}))
  matrix = 4 * WIDTH * WIDTH * 7 // 8
  assert sums["fsdp"]["all-gather"] == LAYERS * matrix
  # On a CPU a gradient is reduced whole, in a ring twice around; the loss is one number more.
  assert sums["fsdp"]["all-reduce"] == LAYERS * 2 * matrix + 2 * 4 * 7 // 8


def test_products_of_the_same_scan(scanned):
  assert products.of_program(scanned) == 3 * LAYERS * 2 * (ROWS // 8) * WIDTH * WIDTH


GROUPS = "replica_groups={{0,1,2,3},{4,5,6,7}}, use_global_device_ids=true"
TPU = f"""
HloModule tpu

%fused_start (p: bf16[8,4]) -> (bf16[8,4], bf16[8,16]) {{
  %p = bf16[8,4]{{1,0}} parameter(0)
  %gather.1 = bf16[8,16]{{1,0}} all-gather(%p), channel_id=7, {GROUPS}, dimensions={{1}}
  ROOT %start = (bf16[8,4], bf16[8,16]) custom-call(%gather.1), custom_call_target="AsyncCollectiveStart"
}}

%async_collective_fusion.3 (p: bf16[8,4]) -> bf16[8,16] {{
  %p = bf16[8,4]{{1,0}} parameter(0)
  ROOT %gather.2 = bf16[8,16]{{1,0}} all-gather(%p), channel_id=7, {GROUPS}, dimensions={{1}}
}}

%fused_done (p: bf16[8,4]) -> bf16[8,16] {{
  %p = bf16[8,4]{{1,0}} parameter(0)
  %gather.3 = bf16[8,16]{{1,0}} all-gather(%p), channel_id=7, {GROUPS}, dimensions={{1}}
  ROOT %d = bf16[8,16]{{1,0}} custom-call(%gather.3), custom_call_target="AsyncCollectiveDone"
}}

%all-reduce-scatter.1 (p: f32[32]) -> f32[8] {{
  %p = f32[32]{{0}} parameter(0)
  %sum = f32[32]{{0}} all-reduce(%p), {GROUPS}, to_apply=%add
  %id = u32[] partition-id()
  ROOT %kept = f32[8]{{0}} dynamic-slice(%sum, %id), dynamic_slice_sizes={{8}}
}}

ENTRY %main (p: bf16[8,4], q: f32[32]) -> bf16[8,16] {{
  %p = bf16[8,4]{{1,0}} parameter(0)
  %q = f32[32]{{0}} parameter(1)
  %s = (bf16[8,4]{{1,0}}, bf16[8,16]{{1,0}}) fusion(%p), kind=kCustom, calls=%fused_start
  %u = bf16[8,16]{{1,0}} fusion(%p), kind=kOutput, calls=%async_collective_fusion.3
  %scattered = f32[8]{{0}} fusion(%q), kind=kCustom, calls=%all-reduce-scatter.1, metadata={{op_name="jit(step)/transpose(jvp(Eagle))/language/while/body/layers/mlp/up/dot_general"}}
  %r = f32[8]{{0}} reduce-scatter(%q), {GROUPS}, dimensions={{0}}, to_apply=%add
  %g = (f32[8]{{0}}, f32[32]{{0}}) all-gather-start(%r), {GROUPS}, dimensions={{0}}
  %gd = f32[32]{{0}} all-gather-done(%g)
  %c = (f32[8]{{0}}, f32[8]{{0}}, u32[], u32[]) collective-permute-start(%r), source_target_pairs={{{{0,4}},{{4,0}}}}
  %cd = f32[8]{{0}} collective-permute-done(%c)
  %alone = f32[8]{{0}} all-reduce(%r), replica_groups={{{{0}},{{1}}}}, to_apply=%add
  ROOT %out = bf16[8,16]{{1,0}} fusion(%p), kind=kCustom, calls=%fused_done
}}
"""  # noqa: E501 - lines as a compiler prints them


def test_every_form_of_a_tpu_program_counts_once():
  found = collectives.find(hlo.parse(TPU), {"data": 2, "fsdp": 4})
  told = sorted((one.kind, one.axes, one.sent, one.asynchronous) for one in found)
  assert told == [
    ("all-gather", ("fsdp",), 32 * 4 * 3 // 4, True),
    ("all-gather", ("fsdp",), 8 * 16 * 2 * 3 // 4, True),
    ("collective-permute", ("data",), 8 * 4, True),
    ("reduce-scatter", ("fsdp",), 32 * 4 * 3 // 4, False),
    ("reduce-scatter", ("fsdp",), 32 * 4 * 3 // 4, False),
  ]
  assert "backward language/layers/mlp/up/dot_general" in {one.place for one in found}


SEND = (
  "ENTRY %main (p: f32[4,8]) -> f32[4,8] {{\n"
  "  %p = f32[4,8] parameter(0)\n"
  "  %t = token[] after-all()\n"
  "  %s = (f32[4,8], u32[], token[]) send(%p, %t), channel_id=3, is_host_transfer=true, "
  'frontend_attributes={{_xla_megascale_target="{{{0}}}x{{0:3}}",'
  '_xla_megascale_transfer_type="{1}"}}\n'
  "  ROOT %r = f32[4,8] copy(%p)\n"
  "}}\n"
)


@pytest.mark.parametrize(
  ("slices", "kind", "sent"),
  [("1,2", "ALL_REDUCE", 128), ("1:4", "ALL_REDUCE", 192), ("1:4", "ALL_GATHER", 384)],
)
def test_slices_send_to_each_other_over_their_hosts(slices, kind, sent):
  program = hlo.parse(SEND.format(slices, kind))
  (found,) = collectives.find(program, {"data": 4, "fsdp": 4})
  assert (found.kind, found.axes) == (kind.lower().replace("_", "-"), ("data",))
  assert found.total == sent
