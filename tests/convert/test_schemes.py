import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from eagle_jax import vision
from eagle_jax.convert import engine
from eagle_jax.convert.rules import Carry, Drop, Rule, Table, place
from eagle_jax.convert.schemes import Scheme, recognise, renamed, without_fresh
from eagle_jax.convert.source import ArraySource
from eagle_jax.errors import EagleError
from tests.convert import keys

FILES = {
  "clip_vit_large_patch14_336": ("clip", "eagle"),
  "convnext_xxlarge_timm": ("convnext", "timm"),
  "convnext_xxlarge_open_clip": ("convnext", "open_clip"),
  "eva02_L_coco_det_sys_o365": ("eva02", "detection"),
  "pix2struct_large": ("pix2struct", "hf"),
  "sam_vit_large": ("sam", "hf"),
  "sam_vit_l_meta_naming": ("sam", "meta"),
}

CARRIED = {
  "clip_vit_large_patch14_336": "vision_model.post_layernorm.",
  "convnext_xxlarge_timm": "head.",
  "convnext_xxlarge_open_clip": "visual.trunk.head.norm.",
  "eva02_L_coco_det_sys_o365": ".rope",
}
"""What is in the names of tensors that EAGLE has and never uses, or computes."""


@functools.cache
def abstract(expert, size):
  size = vision.EXPERTS[expert].sizes[size]
  module = vision.EXPERTS[expert].module(size)
  pixels = jax.ShapeDtypeStruct((1, size.image_size, size.image_size, 3), jnp.float32)
  return jax.eval_shape(module.init, jax.random.key(0), pixels)["params"]


def tables(expert, scheme, size):
  """Returns EAGLE's own table of an expert and the one of another scheme."""
  found = vision.EXPERTS[expert]
  chosen = next(s for s in found.schemes if s.name == scheme)
  return found.table(found.sizes[size]), chosen.table(found.sizes[size]), chosen


def goal(table, name):
  """Returns where a table takes a name: a place, or the kind of rule that takes it nowhere."""
  rule, values = table.match(name)
  return place(rule, values) if isinstance(rule, Rule) else type(rule)


def fresh(expert):
  """Returns the paths that EAGLE draws anew, from the one file of which it is known."""
  if expert != "sam":
    return set()
  table = vision.EXPERTS["sam"].table(vision.EXPERTS["sam"].sizes["released"])
  return {goal(table, name).path for name in keys.load("sam_vit_large").fresh}


def test_every_published_file_of_an_expert_is_known():
  assert set(FILES) == set(keys.STANDALONE)
  assert {expert for expert, _ in FILES.values()} <= set(vision.EXPERTS)


@pytest.mark.parametrize("expert", vision.EXPERTS)
def test_eagles_own_names_come_first_and_are_recognised(expert):
  found = vision.EXPERTS[expert]
  assert found.schemes[0].name == "eagle"
  leaves = engine.flatten(abstract(expert, "demo"))
  names = [name for name, _, _ in engine.expected_names(found.table(found.sizes["demo"]), leaves)]
  assert recognise(found.schemes, names) is found.schemes[0]
  assert not found.schemes[0].fresh


@pytest.mark.parametrize("file", FILES)
def test_a_published_file_is_recognised_and_planned_in_full(file):
  expert, name = FILES[file]
  listed = keys.load(file)
  _, table, scheme = tables(expert, name, "released")
  assert recognise(vision.EXPERTS[expert].schemes, listed.tensors) is scheme
  wanted, drawn = without_fresh(abstract(expert, "released"), scheme)
  assert set(drawn) == fresh(expert)
  plan = engine.plan(listed.source(), table, wanted)  # raises if a parameter is left over
  assert set(plan.leaves) == set(engine.flatten(abstract(expert, "released"))) - set(drawn)
  word = CARRIED.get(file)
  assert set(plan.carried) == {name for name in listed.tensors if word and word in name}
  assert set(plan.dropped) == listed.unused - set(plan.carried)


@pytest.mark.parametrize("file", FILES)
def test_every_tensor_goes_where_eagles_own_name_for_it_goes(file):
  own, table, _ = tables(*FILES[file], "released")
  for name, into in keys.load(file).into.items():
    assert goal(table, name) in ((Drop, Carry) if into is None else (goal(own, into),)), name


@pytest.mark.parametrize("file", FILES)
def test_small_weights_arrive_as_under_eagles_own_names(file):
  expert, name = FILES[file]
  own, table, scheme = tables(expert, name, "demo")
  whole = abstract(expert, "demo")
  rng = np.random.default_rng(0)
  params = engine.unflatten(
    {
      path: rng.normal(size=leaf.shape).astype(np.float32)
      for path, leaf in engine.flatten(whole).items()
    }
  )
  by_own = dict(engine.export(own, params))
  into = keys.load(file).into
  given = {name: by_own[own_name] for name, own_name in into.items() if own_name in by_own}
  wanted, drawn = without_fresh(whole, scheme)
  source = ArraySource(given)
  plan = engine.plan(source, table, wanted)
  found, _ = engine.fill(plan, source)
  expected = engine.flatten(params)
  for path, array in engine.flatten(found).items():
    np.testing.assert_array_equal(array, expected[path])
  assert set(engine.flatten(found)) == set(expected) - set(drawn)
  back = dict(engine.export(table, found))
  assert set(back) == set(given)
  for tensor, array in back.items():
    np.testing.assert_array_equal(array, given[tensor])


@pytest.mark.parametrize("file", FILES)
def test_a_foreign_name_is_an_error_that_names_it(file):
  expert, name = FILES[file]
  _, table, scheme = tables(expert, name, "released")
  wanted, _ = without_fresh(abstract(expert, "released"), scheme)
  for foreign in ("classifier.weight", next(iter(keys.load(file).tensors)) + "_ema"):
    with pytest.raises(EagleError, match="1 breaches") as error:
      engine.plan(keys.load(file).source(foreign), table, wanted)
    assert repr(foreign) in str(error.value)


@pytest.mark.parametrize("expert", vision.EXPERTS)
def test_files_of_two_schemes_and_merged_checkpoints_are_no_experts_file(expert):
  schemes = vision.EXPERTS[expert].schemes
  with pytest.raises(EagleError, match="it follows none"):
    recognise(schemes, keys.load("eagle_x5_vicuna_7b").tensors)
  marks = [scheme.mark.replace("{n}", "0").replace("{s}", "0") for scheme in schemes]
  if len(marks) > 1:
    with pytest.raises(EagleError, match=f"it follows these {len(marks)}"):
      recognise(schemes, marks)


def two():
  return (
    Scheme("short", "blocks.{n}.w", lambda size: Table(())),
    Scheme("long", "net.blocks.{n}.w", lambda size: Table(()), {"neck/*": "new"}),
  )


def test_recognise_takes_a_mark_for_a_whole_name():
  short, long = two()
  assert recognise(two(), ["stem", "blocks.11.w"]).name == short.name
  assert recognise(two(), ["net.blocks.0.w", "net.blocks.1.w"]).name == long.name


@pytest.mark.parametrize(
  ("names", "message"),
  [
    (["blocks.0.w", "net.blocks.0.w"], "these 2: short, long"),
    (["a", "b", "blocks.x.w", "d"], "none; its 4 names begin with 'a', 'b', 'blocks.x.w'"),
    ([], "none, it is empty"),
  ],
)
def test_a_file_of_two_schemes_or_of_none_is_an_error_that_lists_all(names, message):
  with pytest.raises(EagleError) as error:
    recognise(two(), names, place="weights.pth")
  text = str(error.value)
  assert text.startswith("weights.pth must follow exactly one naming scheme")
  assert "short has 'blocks.{n}.w', long has 'net.blocks.{n}.w'" in text
  assert text.endswith(f"it follows {message}")


def test_renamed_changes_source_patterns_only_and_keeps_the_slots():
  table = Table(
    (
      Rule("layers.{n}.norm1.w", "{slot}/norm/scale"),
      Drop("layers.*.rope", "computed"),
      Carry("layers.head", "unused"),
    ),
    {"0": "groups[0]", "1": "rest[0]"},
  )
  found = renamed(table, {"layers.{n}.norm": "blocks.{n}.ln_", "layers.": "stack."})
  assert str(goal(found, "blocks.1.ln_1.w")) == "rest/norm/scale[0]"
  assert goal(found, "stack.0.rope") is Drop
  assert goal(found, "stack.head") is Carry
  assert found.match("layers.0.norm1.w") is None


def test_renaming_a_word_that_is_not_there_is_an_error():
  with pytest.raises(ValueError, match="holds 'layer'"):
    renamed(Table((Rule("blocks.w", "layer/w"),)), {"layer": "stack"})


def test_without_fresh_gives_the_rest_and_the_reasons():
  _, long = two()
  tree = {"stem": {"w": 1}, "neck": {"a": {"w": 2}, "b": 3}, "necktie": 4}
  kept, taken = without_fresh(tree, long)
  assert kept == {"stem": {"w": 1}, "necktie": 4}
  assert taken == {"neck/a/w": "new", "neck/b": "new"}
