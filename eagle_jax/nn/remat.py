"""What is kept of a block's forward pass for its backward pass: policies by name, for each part."""

from __future__ import annotations

import typing
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import flax.linen as nn
import jax
from jax.ad_checkpoint import checkpoint_name

from eagle_jax import patterns
from eagle_jax.registry import lookup

if typing.TYPE_CHECKING:
  from jaxtyping import Array, Float

NAMES = ("query", "key", "value", "mixed", "hidden")
"""What blocks `name`: attention's inputs and its averages, and the MLP's products before the
activation. Kept, no attention input and no wide product is computed twice."""

POLICIES: Mapping[str, Callable[..., bool] | None] = {
  "none": None,
  "block": jax.checkpoint_policies.nothing_saveable,
  "names": jax.checkpoint_policies.save_only_these_names(*NAMES),
  "offload": jax.checkpoint_policies.save_and_offload_only_these_names(
    names_which_can_be_saved=[],
    names_which_can_be_offloaded=list(NAMES),
    offload_src="device",
    offload_dst="pinned_host",
  ),
}
"""Keep everything; a block's input alone; that and `NAMES`; these in the host's memory."""


def name(x: Float[Array, "*any"], what: str) -> Float[Array, "*any"]:
  """Returns an activation as it is, under one of `NAMES`."""
  return typing.cast("Array", checkpoint_name(x, what))


def wrap(block: type[nn.Module], policy: str) -> type[nn.Module]:
  """Returns a block [B, N, C] in and out that keeps what the policy says.

  Raises:
    EagleError: if no policy is called that.
  """
  kept: Any = lookup(POLICIES, policy, what="remat policy")
  if kept is None:
    return block
  return nn.remat(block, prevent_cse=False, policy=kept)  # a scan's body cannot be merged anyway


def assign(rules: str, parts: Iterable[str]) -> dict[str, str]:
  """Returns the policy of every part, such as [(vision/clip, block), (language, names)].

  Args:
    rules: 'PATTERN=POLICY,…', the first that matches counts; a single policy is for all.
    parts: 'language' and 'vision/EXPERT' for each expert.

  Raises:
    EagleError: if a part is matched by no pattern or no policy is called so.
  """
  given = []
  for rule in rules.split(","):
    pattern, _, policy = rule.rpartition("=")
    lookup(POLICIES, policy, what="remat policy")
    given.append((pattern or ".*", policy))
  return patterns.assign(given, parts, what="model.remat")
