"""Weight table of ConvNeXt. Source: timm, ConvNeXt; EAGLE, convnext_encoder.py."""

from eagle_jax.convert.rules import Carry, Rule, Table, conv, depthwise, linear, same

_BLOCK = "stages.{s}.blocks.{n}"
_TARGET = "stage_{s}/blocks[{n}]"

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
  Rule(f"{_BLOCK}.weight", f"{_TARGET}/layer_scale", same),
  Carry("head.*", "EAGLE reads the last stage, without the classifier's norm and layer"),
)


def table(size: object) -> Table:
  """Returns the table, which is the same for every size."""
  del size  # the tables of all experts are asked for in one way
  return Table(_RULES)
