"""EAGLE whole: pictures and tokens in, logits out.

Source: EAGLE (arXiv 2408.15998), eagle_arch.py and eagle_llama.py.
"""

from __future__ import annotations

import dataclasses
import typing
from collections.abc import Mapping
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from eagle_jax import config, vision
from eagle_jax.fusion import FUSIONS
from eagle_jax.language import LANGUAGE_MODELS
from eagle_jax.language.llama import Llama, LlamaSize
from eagle_jax.model.mixture import Mixture, NamedSize
from eagle_jax.model.projector import Projector, num_layers
from eagle_jax.model.splice import splice
from eagle_jax.nn import remat
from eagle_jax.registry import lookup
from eagle_jax.sharding.activations import hold
from eagle_jax.types import Batch

if typing.TYPE_CHECKING:
  from jax.typing import DTypeLike
  from jaxtyping import Array, Float, PRNGKeyArray, UInt8

DTYPES = {"float32": jnp.float32, "bfloat16": jnp.bfloat16, "float16": jnp.float16}
"""Names a config may use for a computation or parameter type."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class EagleSize:
  """Everything that decides the shapes of the model."""

  experts: tuple[NamedSize, ...]
  """Name and size of each vision expert, in channel order."""
  language: LlamaSize
  image_size: int  # pixels per side of the batch's pictures
  grid_side: int  # cells per side of the common grid
  fusion: str = "channel_concat"
  projector: str = "mlp2x_gelu"

  @property
  def image_tokens(self) -> int:
    """N, the image tokens that one picture becomes."""
    return self.grid_side**2


class Eagle(nn.Module):
  """Mixture of vision experts, fusion, projector and language model in one.

  Attributes:
    size: what decides the shapes.
    dtype: of the computation; norms, softmax and logits are float32 whatever it is.
    remat: of the stacks of blocks: one policy, or rules as `nn.remat.assign` takes them.
  """

  size: EagleSize
  dtype: DTypeLike = jnp.float32
  remat: str = "none"

  def setup(self) -> None:
    """Names the parts; pictures [M, H, W, 3] pass through them in this order."""
    size = self.size
    self.vision = Mixture(size.experts, size.grid_side, dtype=self.dtype, remat=self.remat)
    self.fusion = lookup(FUSIONS, size.fusion, what="fusion")()
    self.projector = Projector(size.projector, size.language.width, dtype=self.dtype)
    policy = remat.assign(self.remat, ["language"])["language"]
    self.language = Llama(size.language, dtype=self.dtype, remat=policy)

  def __call__(self, batch: Batch) -> Float[Array, "B S V"]:
    """Returns float32 logits; row position s predicts the token at s + 1.

    Logits at padding mean nothing.
    """
    embeddings = self.embed(batch)  # [B, S, D]
    hidden = self.language(
      embeddings, batch.valid, batch.positions, segments=batch.segments
    )  # [B, S, D]
    logits = self.language.logits(hold(hidden, "rows", "tokens"))
    return hold(logits.astype(jnp.float32), "rows", "tokens", "vocab")  # [B, S, V]

  def embed(self, batch: Batch) -> Float[Array, "B S D"]:
    """Returns what the language model reads: embedded text, image tokens, zeros at padding.

    With no image slots in the batch (I = 0) no vision expert runs.
    """
    text = hold(self.language.embed(batch.tokens), "rows", "tokens")  # [B, S, D]
    image_tokens = self.encode_images(batch.images) if batch.images.shape[1] else None
    spliced = splice(text, image_tokens, tokens=batch.tokens, valid=batch.valid)
    return hold(spliced, "rows", "tokens")

  def encode_images(
    self, images: UInt8[Array, "R I H W 3"] | Float[Array, "R I H W 3"]
  ) -> Float[Array, "R T D"]:
    """Returns the image tokens of each group of rows, images in order, T = I·N."""
    groups, slots = images.shape[:2]
    pictures = hold(images.reshape(groups * slots, *images.shape[2:]), "pictures")
    tokens = hold(self.projector(self.features(pictures)), "pictures")  # [M, N, D]
    tokens = tokens.reshape(groups, slots * tokens.shape[1], tokens.shape[2])
    return hold(tokens, "rows")  # [R, I·N, D]

  def features(
    self, images: UInt8[Array, "M H W 3"] | Float[Array, "M H W 3"]
  ) -> Float[Array, "M N C"]:
    """Returns the fused tokens of M pictures, before the projector."""
    return hold(self.fusion(self.vision(images)), "pictures")


def build(model: config.Model) -> Eagle:
  """Returns the module that a config's model section describes; no array is made.

  A picture [image_size, image_size, 3] becomes grid_side² image tokens.

  Raises:
    EagleError: if an expert, size, fusion, projector, language model, dtype or remat policy
      has no such name, the nearest one is named; or if a part has no policy.
  """
  lookup(FUSIONS, model.fusion, what="fusion")
  num_layers(model.projector)
  language = lookup(LANGUAGE_MODELS, model.language, what="language model")
  size = EagleSize(
    experts=tuple(vision.parse(name) for name in model.experts),
    fusion=model.fusion,
    projector=model.projector,
    language=dataclasses.replace(language, vocab=model.vocab_rows or language.vocab),
    image_size=model.image_size,
    grid_side=model.grid_side,
  )
  remat.assign(model.remat, ["language", *(f"vision/{name}" for name, _ in size.experts)])
  return Eagle(size, dtype=lookup(DTYPES, model.dtype, what="dtype"), remat=model.remat)


def init_params(eagle: Eagle, key: PRNGKeyArray) -> dict[str, Any]:
  """Draws every parameter at random, in float32; to be traced under `jax.jit`.

  Paths are those of the module tree, such as 'vision/clip/…' and 'language/head/kernel'.
  """
  side = eagle.size.image_size
  row = jnp.zeros((1, 2), jnp.int32)  # [B, S]
  batch = Batch(
    images=jnp.zeros((1, 1, side, side, 3), jnp.uint8),  # [B, I, H, W, 3]
    tokens=row,
    valid=row == 0,
    loss_mask=row == 0,
    positions=row,
  )
  return eagle.init(key, batch)["params"]


def abstract_params(eagle: Eagle) -> Mapping[str, Any]:
  """Returns the shape and dtype of every parameter as a nested dict; computes nothing.

  Leaves are `jax.ShapeDtypeStruct`s of shapes such as [L, D, D].
  """
  return jax.eval_shape(lambda key: init_params(eagle, key), jax.random.key(0))
