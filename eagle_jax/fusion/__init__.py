"""How the grids of several experts become one sequence of visual tokens.

A fusion is a Flax module without fields whose call takes the grids in the order of
the experts, all of one side, and returns tokens [B, N, C]. One line per fusion.
"""

from __future__ import annotations

import typing

from eagle_jax.fusion.channel_concat import ChannelConcat

if typing.TYPE_CHECKING:
  import flax.linen as nn

FUSIONS: dict[str, type[nn.Module]] = {
  "channel_concat": ChannelConcat,
}
