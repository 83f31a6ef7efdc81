"""Policies of rematerialisation: what they keep, that they change no gradient, their rules."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from eagle_jax.errors import EagleError
from eagle_jax.nn import remat
from eagle_jax.vision import EXPERTS

PARTS = ("language", "vision/clip", "vision/sam")


@pytest.mark.parametrize("expert", ["clip", "eva02"])
def test_policies_keep_less_and_change_no_gradient(expert):
  size = EXPERTS[expert].sizes["demo"]
  pixels = jax.random.normal(jax.random.key(0), (1, size.image_size, size.image_size, 3))
  make = lambda policy: EXPERTS[expert].module(size=size, dtype=jnp.float32, remat=policy)
  params = make("none").init(jax.random.key(1), pixels)["params"]
  residuals, gradients = {}, {}
  for policy in ("none", "names", "block"):
    module = make(policy)
    apply = lambda p, module=module: jnp.square(module.apply({"params": p}, pixels)).sum()
    _, backward = jax.vjp(apply, params)
    residuals[policy] = sum(leaf.size for leaf in jax.tree.leaves(backward))
    gradients[policy] = jax.jit(jax.grad(apply))(params)
  assert residuals["block"] < residuals["names"] < residuals["none"]
  for policy in ("names", "block"):
    jax.tree.map(
      lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-5 * np.abs(b).max()),
      gradients[policy],
      gradients["none"],
    )


def test_offloading_moves_what_is_named_to_the_host():
  size = EXPERTS["clip"].sizes["demo"]
  pixels = jnp.ones((1, size.image_size, size.image_size, 3))
  module = EXPERTS["clip"].module(size=size, dtype=jnp.float32, remat="offload")
  params = module.init(jax.random.key(1), pixels)["params"]
  gradient = jax.grad(lambda p: jnp.square(module.apply({"params": p}, pixels)).sum())
  # Per block: query, key, value, mixed and hidden go, and come back.
  text = str(jax.make_jaxpr(gradient)(params))
  assert text.count("f32<host>[") >= 2 * len(remat.NAMES)


@pytest.mark.parametrize(
  ("rules", "policies"),
  [
    ("block", ("block", "block", "block")),
    ("language=names,vision/.*=block", ("names", "block", "block")),
    ("vision/sam=none,language=offload,block", ("offload", "block", "none")),
  ],
)
def test_the_first_rule_that_matches_a_part_counts(rules, policies):
  assert remat.assign(rules, PARTS) == dict(zip(PARTS, policies, strict=True))


def test_every_part_needs_a_policy_that_exists():
  with pytest.raises(EagleError, match=r"model\.remat.*2 match none: vision/clip, vision/sam"):
    remat.assign("language=block", PARTS)
  with pytest.raises(EagleError, match="did you mean 'names'"):
    remat.assign("language=name,block", PARTS)
