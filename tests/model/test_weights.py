"""The table of a whole checkpoint covers every released one, by names and shapes alone."""

import dataclasses
import math

import numpy as np
import pytest

from eagle_jax import config
from eagle_jax.convert import engine
from eagle_jax.convert.source import ArraySource
from eagle_jax.errors import EagleError
from eagle_jax.model import eagle, weights
from tests.convert import keys

EXPERTS = {
  "x4": ("clip", "convnext", "eva02", "pix2struct"),
  "x5": ("clip", "convnext", "sam", "eva02", "pix2struct"),
}
DEMO = tuple(f"{name}@demo" for name in EXPERTS["x5"])


def demo(projector="mlp2x_gelu", experts=DEMO):
  model = config.Model(
    experts=experts, projector=projector, language="demo", image_size=64, grid_side=4
  )
  built = eagle.build(model)
  return built.size, eagle.abstract_params(built)


def names_of(size, abstract):
  leaves = engine.flatten(abstract)
  return {n: place for n, place, _ in engine.expected_names(weights.table(size), leaves)}


@pytest.mark.parametrize("name", keys.MERGED)
def test_every_key_of_a_released_checkpoint_has_its_place(name):
  told = keys.load(name)
  _, letter, language = name.split("_", 2)
  built = eagle.build(config.Model(experts=EXPERTS[letter], language=language))
  plan = engine.plan(told.source(), weights.table(built.size), eagle.abstract_params(built))
  assert len(plan.moves) + len(plan.carried) + len(plan.dropped) == len(told.tensors)
  assert not plan.dropped
  ropes = {name for name in plan.carried if ".rope_" in name or ".rope." in name}
  assert ropes == told.unused
  assert all("post_layernorm" in name or ".head." in name for name in set(plan.carried) - ropes)
  moved = sum(math.prod(move.entry.shape) for move in plan.moves)
  assert moved == sum(math.prod(leaf.shape) for leaf in plan.leaves.values())


def test_rotary_tables_may_come_once_or_under_every_block():
  told = keys.load("eagle_x5_vicuna_7b")
  once = {name: told.tensors[name] for name in told.tensors if ".attn.rope." not in name}
  assert 0 < len(once) < len(told.tensors)
  source = dataclasses.replace(told, tensors=once).source()
  built = eagle.build(config.Model(experts=EXPERTS["x5"], language="vicuna_7b"))
  plan = engine.plan(source, weights.table(built.size), eagle.abstract_params(built))
  assert sum("rope" in name for name in plan.carried) == 4


def test_export_names_are_those_of_a_merged_checkpoint():
  names = names_of(*demo())
  for name, path in (
    ("model.vision_tower.vision_towers.0.vision_tower.vision_model.pre_layrnorm.bias", "clip"),
    ("model.vision_tower.vision_towers.1.vision_tower.stem.0.weight", "convnext"),
    ("model.vision_tower.vision_towers.2.vision_tower.neck.conv1.weight", "sam"),
    ("model.vision_tower.vision_towers.3.vision_tower.pos_embed", "eva02"),
    ("model.vision_tower.vision_towers.4.vision_tower.layernorm.weight", "pix2struct"),
  ):
    assert names[name].path.startswith(f"vision/{path}/")
  assert names["lm_head.weight"].path == "language/head/kernel"
  assert names["model.embed_tokens.weight"].path == "language/embed/embedding"


def test_the_prefix_of_an_expert_is_its_place_in_channel_order():
  names = names_of(*demo(experts=("sam@demo", "clip@demo")))
  assert names[f"{weights.expert_prefix(0)}pos_embed"].path == "vision/sam/positions"
  assert f"{weights.expert_prefix(1)}vision_model.embeddings.class_embedding" in names


@pytest.mark.parametrize(
  ("kind", "layers"),
  [
    ("linear", [""]),
    ("mlp1x_gelu", ["0."]),
    ("mlp2x_gelu", ["0.", "2."]),
    ("mlp3x_gelu", ["0.", "2.", "4."]),
  ],
)
def test_every_projector_has_its_names(kind, layers):
  names = names_of(*demo(kind))
  found = {n: place.path for n, place in names.items() if place.path.startswith("projector/")}
  assert found == {
    f"model.mm_projector.{layer}{theirs}": f"projector/layer_{n}/{ours}"
    for n, layer in enumerate(layers)
    for theirs, ours in (("weight", "kernel"), ("bias", "bias"))
  }


def test_identity_has_no_names_and_others_do_not_exist():
  assert weights.projector("identity").rules == ()
  with pytest.raises(EagleError, match="mlp2x_gelu"):
    weights.projector("mlp2x_gelo")


def test_import_and_export_of_a_whole_model_give_the_same_bytes():
  size, abstract = demo()
  leaves = engine.flatten(abstract)
  rng = np.random.default_rng(0)
  given = {}
  for name, place, transform in engine.expected_names(weights.table(size), leaves):
    shape = leaves[place.path].shape[len(place.index) :]
    given[name] = transform.inverse(rng.normal(size=shape).astype(np.float32))
  head = f"{weights.expert_prefix(1)}head.fc.weight"
  given[head] = np.ones((10, 96), np.float32)
  rope = f"{weights.expert_prefix(3)}rope_win.freqs_cos"
  given[rope] = np.ones((4, 4), np.float32)
  before = ArraySource(given)
  plan = engine.plan(before, weights.table(size), abstract)
  params, carried = engine.fill(plan, before)
  assert carried.keys() == {head, rope}
  exported = dict(engine.export(plan, params, carried))
  assert exported.keys() == given.keys()
  assert all(array.tobytes() == given[name].tobytes() for name, array in exported.items())
  assert exported.keys() == dict(engine.export(weights.table(size), params, carried)).keys()
