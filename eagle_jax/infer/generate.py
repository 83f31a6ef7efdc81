"""Prefill, then a decode loop that stays on the device until every row has ended.

The state between the two carries one cache pair per layer and is donated, so a step
writes one slot in place instead of copying the caches. Prompts may be padded on either
side: slots are only a place to store, who may look at them is the `valid` mask, and
rotary positions count real tokens.
"""

from __future__ import annotations

import dataclasses
import functools
import typing

import jax
import jax.numpy as jnp
from flax import struct
from jax import lax

from eagle_jax.errors import EagleError
from eagle_jax.infer.sampling import Sampling, greedy, sample
from eagle_jax.language import cache as caching
from eagle_jax.language.llama import causal_mask

if typing.TYPE_CHECKING:
  from collections.abc import Callable, Mapping
  from typing import Any

  from jaxtyping import Array, Bool, Float, Float32, Int, PRNGKeyArray

  from eagle_jax.language.cache import LayerCache
  from eagle_jax.language.llama import Llama

  Params = Mapping[str, Any]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Limits:
  """When an answer ends. Static: other values are another compilation."""

  max_new_tokens: int  # tokens per row, at least 1; also columns of the result
  eos_ids: tuple[int, ...] = ()  # ids that end a row; the id itself is kept
  pad_id: int = 0  # fills a row that has ended
  scores: bool = False  # keep the logits of every step, [B, T, V] float32


@struct.dataclass
class Prompt:
  """What is answered to: embedded rows, padded on either side.

  Attributes:
    embeddings: token and image vectors; anything finite at padding.
    valid: True at content.
    positions: rotary position of each token.
  """

  embeddings: Float[Array, "B S D"]
  valid: Bool[Array, "B S"]
  positions: Int[Array, "B S"]


@struct.dataclass
class Generated:
  """Answers without their prompts.

  Attributes:
    tokens: new ids, the pad id after the end of a row.
    lengths: new tokens per row, the id that ended it included.
    scores: logits of each new token before temperature, 0 where no step was taken;
      None unless asked for.
  """

  tokens: Int[Array, "B T"]
  lengths: Int[Array, " B"]
  scores: Float32[Array, "B T V"] | None = None


@struct.dataclass
class DecodeState:
  """Everything the loop carries from token to token.

  Attributes:
    step: tokens chosen so far, the same in all rows.
    generated: the answers so far.
    ended: rows that have met an end id.
    positions: rotary position of each row's last prompt token.
    valid: cache slots that hold something to look at, prompt and answer.
    caches: one per layer.
    key: source of randomness of the next draw.
  """

  step: Int[Array, ""]
  generated: Generated
  ended: Bool[Array, " B"]
  positions: Int[Array, " B"]
  valid: Bool[Array, "B S"]
  caches: list[LayerCache]
  key: PRNGKeyArray


def generate(
  model: Llama,
  params: Params,
  prompt: Prompt,
  *,
  limits: Limits,
  sampling: Sampling | None = None,
  key: PRNGKeyArray | None = None,
) -> Generated:
  """Answers a batch of embedded prompts [B, S, D].

  Compiles once per shape of the prompt, model and limits. A row's answer does not
  depend on the rows beside it when the choice is greedy.

  Args:
    model: the language model with `stacked=False`.
    params: its parameters, from `unstack`.
    prompt: the rows, each with at least one valid token.
    limits: length and end ids.
    sampling: how to draw; None takes the likeliest token.
    key: needed when `sampling` is given.

  Raises:
    EagleError: if no new token is allowed, or sampling has no key.
  """
  if limits.max_new_tokens < 1:
    raise EagleError(f"max_new_tokens must be at least 1, it is {limits.max_new_tokens}")
  if sampling is not None and key is None:
    raise EagleError("sampling draws at random and needs a key, none was given")
  key = jax.random.key(0) if key is None else key
  state = prefill(model, params, prompt, limits=limits, sampling=sampling, key=key)
  return decode(model, params, state, limits=limits, sampling=sampling).generated


@functools.partial(jax.jit, static_argnames=("model", "limits"))
def prefill(
  model: Llama,
  params: Params,
  prompt: Prompt,
  *,
  limits: Limits,
  sampling: Sampling | None,
  key: PRNGKeyArray,
) -> DecodeState:
  """Reads the prompts [B, S, D] in one pass and chooses the first token of each row."""
  rows, length = prompt.valid.shape
  new = limits.max_new_tokens
  caches = caching.empty(model.size, rows=rows, length=length + new, dtype=model.dtype)
  given = (prompt.embeddings, causal_mask(prompt.valid), prompt.positions)
  extend = _bound(model, params, "extend")
  hidden, caches = extend(*given, caches=caches, start=0)  # [B, S, D]
  last = length - 1 - jnp.argmax(prompt.valid[:, ::-1], axis=1)  # [B]
  hidden = jnp.take_along_axis(hidden, last[:, None, None], axis=1)  # [B, 1, D]
  scores = jnp.zeros((rows, new, model.size.vocab), jnp.float32) if limits.scores else None
  state = DecodeState(
    step=jnp.zeros((), jnp.int32),
    generated=Generated(
      tokens=jnp.full((rows, new), limits.pad_id, jnp.int32),
      lengths=jnp.zeros(rows, jnp.int32),
      scores=scores,
    ),
    ended=jnp.zeros(rows, bool),
    positions=jnp.take_along_axis(prompt.positions, last[:, None], axis=1)[:, 0],
    valid=jnp.pad(prompt.valid, ((0, 0), (0, new))),
    caches=caches,
    key=key,
  )
  return _choose(model, params, state, hidden=hidden, limits=limits, sampling=sampling)


@functools.partial(jax.jit, static_argnames=("model", "limits"), donate_argnames="state")
def decode(
  model: Llama,
  params: Params,
  state: DecodeState,
  *,
  limits: Limits,
  sampling: Sampling | None,
) -> DecodeState:
  """Chooses tokens until every row has ended or [B, T] is full; donates `state`."""

  def goes_on(state: DecodeState) -> Bool[Array, ""]:
    return (state.step < limits.max_new_tokens) & ~jnp.all(state.ended)

  def advance(state: DecodeState) -> DecodeState:
    return step(model, params, state, limits=limits, sampling=sampling)

  return lax.while_loop(goes_on, advance, state)


def step(
  model: Llama,
  params: Params,
  state: DecodeState,
  *,
  limits: Limits,
  sampling: Sampling | None,
) -> DecodeState:
  """Feeds the last token [B] of each row to the model and chooses the next."""
  newest = state.step - 1  # column of the token that is fed
  start = state.valid.shape[1] - limits.max_new_tokens + newest  # its cache slot
  token = lax.dynamic_slice_in_dim(state.generated.tokens, newest, 1, axis=1)  # [B, 1]
  slots = jnp.arange(state.valid.shape[1])
  # A row that has ended goes on with padding; nothing of it is kept, and it may look at
  # that padding, so that no row ever attends to nothing.
  valid = state.valid | (slots == start)[None]
  embedded = _bound(model, params, "embed")(token)  # [B, 1, D]
  positions = (state.positions + state.step)[:, None]  # [B, 1]
  extend = _bound(model, params, "extend")
  hidden, caches = extend(
    embedded, valid[:, None, None], positions, caches=state.caches, start=start
  )  # [B, 1, D]
  state = dataclasses.replace(state, valid=valid, caches=caches)
  return _choose(model, params, state, hidden=hidden, limits=limits, sampling=sampling)


def _choose(
  model: Llama,
  params: Params,
  state: DecodeState,
  *,
  hidden: Float[Array, "B 1 D"],
  limits: Limits,
  sampling: Sampling | None,
) -> DecodeState:
  """Picks the token after `hidden` and notes it in column `step` of the answers."""
  logits = _bound(model, params, "logits")(hidden)[:, 0]  # [B, V]
  key, draw = jax.random.split(state.key)
  token = greedy(logits) if sampling is None else sample(logits, sampling, draw)
  token = jnp.where(state.ended, limits.pad_id, token)
  done = state.generated
  scores = done.scores
  if scores is not None:
    scores = lax.dynamic_update_slice_in_dim(scores, logits[:, None], state.step, axis=1)
  ends = jnp.any(token[:, None] == jnp.asarray(limits.eos_ids, jnp.int32)[None], axis=1)
  return dataclasses.replace(
    state,
    step=state.step + 1,
    generated=Generated(
      tokens=lax.dynamic_update_slice_in_dim(done.tokens, token[:, None], state.step, axis=1),
      lengths=done.lengths + (~state.ended).astype(jnp.int32),
      scores=scores,
    ),
    ended=state.ended | ends,
    key=key,
  )


def _bound(model: Llama, params: Params, method: str) -> Callable[..., Any]:
  """Returns a method of the model over these parameters, such as `logits` of [B, 1, D]."""
  return functools.partial(model.apply, {"params": params}, method=method)
