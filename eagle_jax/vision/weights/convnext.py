"""Weight tables of ConvNeXt. Source: timm, ConvNeXt; EAGLE, convnext_encoder.py; open_clip."""

from eagle_jax.convert.rules import Carry, Drop, Rule, Table, conv, depthwise, linear, merge, same
from eagle_jax.convert.schemes import Scheme, renamed

_BLOCK = "stages.{s}.blocks.{n}"
_TARGET = "stage_{s}/blocks[{n}]"
_LAYER_SCALE = f"{_BLOCK}.weight"
_GAMMA = f"{_BLOCK}.gamma"
_TRUNK = "visual.trunk."

_RULES = (
  Rule("stem.0.weight", "patches/kernel", conv),
  Rule("stem.0.bias", "patches/bias", same),
  Rule("stem.1.weight", "patches_norm/scale", same),
  Rule("stem.1.bias", "patches_norm/bias", same),
  Rule("stages.{s}.downsample.0.weight", "stage_{s}/downsample_norm/scale", same),
  Rule("stages.{s}.downsample.0.bias", "stage_{s}/downsample_norm/bias", same),
  Rule("stages.{s}.downsample.1.weight", "stage_{s}/downsample_conv/kernel", conv),
  Rule("stages.{s}.downsample.1.bias", "stage_{s}/downsample_conv/bias", same),
  Rule(f"{_BLOCK}.conv_dw.weight", f"{_TARGET}/depthwise/kernel", depthwise),
  Rule(f"{_BLOCK}.conv_dw.bias", f"{_TARGET}/depthwise/bias", same),
  Rule(f"{_BLOCK}.norm.weight", f"{_TARGET}/norm/scale", same),
  Rule(f"{_BLOCK}.norm.bias", f"{_TARGET}/norm/bias", same),
  Rule(f"{_BLOCK}.mlp.fc1.weight", f"{_TARGET}/mlp/fc1/kernel", linear),
  Rule(f"{_BLOCK}.mlp.fc1.bias", f"{_TARGET}/mlp/fc1/bias", same),
  Rule(f"{_BLOCK}.mlp.fc2.weight", f"{_TARGET}/mlp/fc2/kernel", linear),
  Rule(f"{_BLOCK}.mlp.fc2.bias", f"{_TARGET}/mlp/fc2/bias", same),
  # EAGLE renames 'gamma', a word that transformers' loader rewrites, to 'weight'.
  Rule(_LAYER_SCALE, f"{_TARGET}/layer_scale", same),
  Carry("head.*", "EAGLE reads the last stage, without the classifier's norm and layer"),
)


def table(size: object) -> Table:
  """Returns the table, which is the same for every size."""
  del size  # the tables of all experts are asked for in one way
  return Table(_RULES)


_OTHER_HALF = Table(
  (
    Drop("visual.head.proj.weight", "from the image encoder to the space shared with texts"),
    Drop("visual.head.mlp.fc{n}.weight", "the same in two layers, in some of the files"),
    Drop("token_embedding.weight", "the text encoder's token table"),
    Drop("positional_embedding", "the text encoder's position table"),
    Drop("transformer.resblocks.*", "the text encoder's blocks"),
    Drop("ln_final.*", "the text encoder's last norm"),
    Drop("text_projection", "from the text encoder to the space shared with images"),
    Drop("logit_scale", "temperature of the contrastive loss"),
  )
)


def _timm(size: object) -> Table:
  """Returns the table of timm's names, in which the layer scale [C] is called gamma."""
  return renamed(table(size), {_LAYER_SCALE: _GAMMA})


def _open_clip(size: object) -> Table:
  """Returns the table of open_clip's names: timm's below the image encoder's trunk.

  EAGLE would keep the projection (1024, C) as its classifier [C, 1024] and never use it; here
  it is dropped.
  """
  return merge(_timm(size).prefixed(_TRUNK, ""), _OTHER_HALF)


SCHEMES = (
  Scheme("eagle", _LAYER_SCALE, table),
  Scheme("timm", _GAMMA, _timm),
  Scheme("open_clip", _TRUNK + _GAMMA, _open_clip),
)
