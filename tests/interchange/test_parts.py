"""Parts of the model: which parameters they have, and in whose names their files come."""

import numpy as np
import pytest

from eagle_jax import config
from eagle_jax.convert import engine
from eagle_jax.convert.source import ArraySource
from eagle_jax.errors import EagleError
from eagle_jax.interchange import parts
from eagle_jax.model import eagle

EXPERTS = ("clip@demo", "sam@demo")


@pytest.fixture(scope="module")
def built():
  model = config.Model(experts=EXPERTS, language="demo", image_size=64, grid_side=4)
  return eagle.build(model)


def paths(tree):
  return set(engine.flatten(tree))


def test_parts_share_out_the_whole(built):
  whole = parts.part(built, "whole")
  names = ("language", "projector", "clip", "sam")
  found = [paths(parts.part(built, n).targets(parts.part(built, n).schemes[0])[0]) for n in names]
  assert (
    set.union(*found)
    == paths(whole.targets(whole.schemes[0])[0])
    == paths(eagle.abstract_params(built))
  )
  assert sum(map(len, found)) == len(set.union(*found))


@pytest.mark.parametrize("name", ["whole", "language", "projector", "clip", "sam"])
def test_every_scheme_names_all_it_fills(built, name):
  part = parts.part(built, name)
  for scheme in part.schemes:
    abstract, fresh = part.targets(scheme)
    leaves = engine.flatten(abstract)
    table = part.table(scheme)
    named = {place.path for _, place, _ in engine.expected_names(table, leaves)}
    assert named == set(leaves)
    assert named | set(fresh) == {part.prefix + path for path in part.leaves}
    tensors = [name for name, _, _ in engine.expected_names(table, leaves)]
    assert part.recognise(tensors, place="x") is scheme


def test_meta_calls_the_neck_of_sam_another_networks(built):
  part = parts.part(built, "sam")
  scheme = next(s for s in part.schemes if s.name == "meta")
  assert set(part.targets(scheme)[1]) == {
    "vision/sam/neck_conv/kernel",
    "vision/sam/neck_norm/scale",
    "vision/sam/neck_norm/bias",
  }


def test_a_part_is_selected_whole_or_not_at_all(built):
  part = parts.part(built, "projector")
  held = {path: np.zeros(1) for path in ("projector/layer_0/kernel", "language/x")}
  with pytest.raises(EagleError, match=r"here must hold all 4 .* lacks 3: projector/layer_0/bias"):
    part.select(part.schemes[0], held, place="here")
  all_of = {part.prefix + path: np.zeros(1) for path in part.leaves} | held
  assert set(part.select(part.schemes[0], all_of, place="here")) == set(all_of) - {"language/x"}


def test_there_is_a_nearest_part(built):
  with pytest.raises(EagleError, match="did you mean 'language'"):
    parts.part(built, "langauge")
  with pytest.raises(EagleError, match="no part is called 'convnext'"):
    parts.part(built, "convnext")
  with pytest.raises(EagleError, match="no part is called 'clpi', did you mean 'clip'"):
    parts.part(built, "sam,clpi")
  for wrong in ("sam,sam", "whole,sam"):
    with pytest.raises(EagleError, match=f"each named once, and 'whole' is none: '{wrong}'"):
      parts.part(built, wrong)


def test_of_a_merged_checkpoint_every_tensor_is_taken_or_known_to_be_left(built):
  whole = parts.part(built, "whole")
  leaves = engine.flatten(whole.targets(whole.schemes[0])[0])
  names = [n for n, _, _ in engine.expected_names(whole.table(whole.schemes[0]), leaves)]
  assert parts.is_merged(names)
  for chosen in ("language", "projector", "sam", "clip,language"):
    part = parts.part(built, chosen, merged=True)
    source = ArraySource({t.name: t.make() for t in outgoing(whole, leaves)})
    scheme = part.recognise(names, place="x")
    plan = engine.plan(source, part.table(scheme), part.targets(scheme)[0])
    prefixes = tuple(parts.part(built, one).prefix for one in chosen.split(","))
    assert all(move.place.path.startswith(prefixes) for move in plan.moves)
    assert len(plan.moves) + len(plan.dropped) == len(names)
  assert parts.part(built, "sam").outer == "model.vision_tower.vision_towers.1.vision_tower."
  assert parts.part(built, "whole", merged=True) == whole


def outgoing(part, leaves):
  """Every tensor of the part, all zeros."""
  zeros = {path: np.zeros(leaf.shape, np.float32) for path, leaf in leaves.items()}
  return engine.outgoing(part.table(part.schemes[0]), zeros)
