"""The command itself: finds the verb, runs it, turns errors into one line and an exit code.

Exit codes: 0 done, 1 an unforeseen error (with its traceback) or one that may pass, 2 a
mistake in the command, a config or the input (one line), 3 a plan that does not fit, 130
interrupted. `train` tells launchers more: 42 saved, start again; 43 what would be 2 elsewhere.
"""

from __future__ import annotations

import importlib
import os
import sys
from collections.abc import Mapping, Sequence

import eagle_jax
from eagle_jax.errors import FATAL, EagleError
from eagle_jax.registry import nearest

VERBS: Mapping[str, str] = {
  "train": "runs one stage of training",
  "convert": "turns a foreign checkpoint into one of this project",
  "export": "turns a checkpoint of this project back into foreign files",
  "verify": "holds a checkpoint against its manifest, or two of any kind against each other",
  "generate": "answers a question about a picture",
  "demo": "runs all three stages on real pictures on this machine and writes a report",
  "data": "makes records ready to be trained on",
  "plan": "compiles a stage for a slice of TPUs that is not there: does it fit, how long",
  "describe": "prints experts, shapes, what a stage trains, and memory, without computing",
}
"""Each verb is the module of its name in this package, imported when it is asked for:
`--help` must not wait for JAX."""


def usage() -> str:
  """The text of `eagle-jax --help`."""
  width = max(map(len, VERBS))
  verbs = "\n".join(f"  {verb:<{width}}  {summary}" for verb, summary in VERBS.items())
  return f"""usage: eagle-jax VERB [flags]

{verbs}

eagle-jax VERB --help lists the flags of a verb; eagle-jax --version prints the version."""


def dispatch(arguments: Sequence[str]) -> int:
  """Runs the verb named first with the arguments after it; returns the exit code.

  Raises:
    EagleError: for a verb or flag that does not exist.
  """
  first = arguments[0] if arguments else "--help"
  if first in ("--help", "-h", "help"):
    print(usage())
    return 0
  if first == "--version":
    print(f"eagle-jax {eagle_jax.__version__}")
    return 0
  if first not in VERBS:
    known = ("--help", "--version") if first.startswith("-") else tuple(VERBS)
    raise EagleError(
      f"there is no verb {first!r}{nearest(first, known) or '.'} Verbs: {', '.join(VERBS)}."
    )
  verb = importlib.import_module(f"eagle_jax.cli.{first}")
  code: int = verb.run(arguments[1:], VERBS[first])
  return code


def main(arguments: Sequence[str] | None = None) -> int:
  """Runs the command line and returns its exit code.

  Args:
    arguments: what follows the program's name; that of this process by default.
  """
  given = sys.argv[1:] if arguments is None else arguments
  try:
    code = dispatch(given)
    sys.stdout.flush()  # so that a reader that has gone is noticed here
    return code
  except EagleError as error:
    print(f"eagle-jax: {error}", file=sys.stderr)
    fatal = error.exit_code == EagleError.exit_code and given[:1] == ["train"]
    return FATAL if fatal else error.exit_code
  except KeyboardInterrupt:
    print("eagle-jax: interrupted", file=sys.stderr)
    return 130
  except BrokenPipeError:
    # The reader of our output went away, as in `eagle-jax describe | head`.
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return 0
