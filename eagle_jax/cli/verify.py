"""`eagle-jax verify`: is a checkpoint as it was written, and are two of them the same?

eagle-jax verify checkpoints/released
eagle-jax verify Eagle-X5-7B exported --logits
"""

from __future__ import annotations

import collections
import pathlib
from collections.abc import Sequence

from eagle_jax.cli import config as cli_config
from eagle_jax.cli.parser import Parser, existing
from eagle_jax.errors import EagleError

MAX_NAMED = 20  # tensors of one verdict that are named
DIFFERS = 1
"""Exit code where two checkpoints are not the same."""


def run(arguments: Sequence[str], summary: str) -> int:
  """Runs the verb; returns the exit code."""
  parser = Parser("verify", summary)
  parser.add_argument("first", metavar="A", help="a checkpoint, or foreign weights")
  parser.add_argument("second", nargs="?", metavar="B", help="another, of either kind")
  parser.add_argument(
    "--only",
    default="whole",
    metavar="PARTS",
    help="language, projector or an expert, also several with commas between; by default the whole",
  )
  parser.add_argument(
    "--logits", action="store_true", help="compare what the models answer, too; reads them whole"
  )
  cli_config.add_flag(parser, required=False)
  options, overrides = parser.read(arguments, overrides=True)
  paths = [path for path in (options.first, options.second) if path is not None]
  for path in paths:
    existing(path, what="checkpoint")
  if options.second is None:
    return _one(options.first)

  from eagle_jax.interchange import compare

  given = cli_config.optional(options.config, overrides)
  told = [given or compare.described(path, options.only) for path in paths]
  either = next(filter(None, told), None)  # what one does not say of itself the other may
  sides = [
    compare.named(p, options.only, own or either) for p, own in zip(paths, told, strict=True)
  ]
  found = list(compare.tensors(*sides))
  counts = collections.Counter(finding.verdict for finding in found)
  for verdict in compare.VERDICTS:
    if counts[verdict]:
      print(f"{counts[verdict]:8,} {verdict}")
  odd = [finding for finding in found if finding.verdict != compare.SAME]
  for finding in odd[:MAX_NAMED]:
    print(f"  {finding.name}: {finding.verdict} {finding.detail}".rstrip())
  if len(odd) > MAX_NAMED:
    print(f"  and {len(odd) - MAX_NAMED} more")
  if options.logits:
    answers = [compare.logits(path, given) for path in paths]
    print(f"logits differ by {compare.distance(*answers):.3g} of their norm, float32")
  return DIFFERS if odd else 0


def _one(path: str) -> int:
  """Holds one checkpoint against its manifest."""
  from eagle_jax import checkpoint
  from eagle_jax.checkpoint import manifest

  home = pathlib.Path(checkpoint.resolve(path))
  count = manifest.check(home, contents=True)
  if not count:
    raise EagleError(f"{path} has no {manifest.FILE} to be held against; name two checkpoints")
  print(f"{count:,} files are as they were written")
  return 0
