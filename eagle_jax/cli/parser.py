"""Reading the command line: flags spelt out in full, mistakes answered in one line."""

from __future__ import annotations

import argparse
import os
import pathlib
from collections.abc import Sequence
from typing import NoReturn

from eagle_jax.errors import EagleError
from eagle_jax.registry import nearest


class Parser(argparse.ArgumentParser):
  """An argument parser that raises `EagleError` with the nearest right flag.

  A flag must be given in full: an abbreviation that works today would stop working
  the day a second flag begins with the same letters.
  """

  def __init__(self, verb: str, summary: str):
    """Makes the parser of one verb; `summary` is the first line of its help."""
    super().__init__(
      prog=f"eagle-jax {verb}",
      description=summary,
      allow_abbrev=False,
    )

  def error(self, message: str) -> NoReturn:
    """Turns argparse's own complaint into the one kind of error that users see."""
    raise EagleError(f"{message} (see {self.prog} --help)")

  def flags(self) -> tuple[str, ...]:
    """Every flag this verb knows, as written."""
    return tuple(flag for action in self._actions for flag in action.option_strings)

  def read(
    self, arguments: Sequence[str], *, overrides: bool = False
  ) -> tuple[argparse.Namespace, list[str]]:
    """Parses the arguments of a verb.

    Args:
      arguments: what follows the verb.
      overrides: whether `--config.a.b=value` may occur; they are collected unread.

    Returns:
      The parsed flags, and the overrides in order, each as one `--config.a.b=value`.

    Raises:
      EagleError: for an unknown, incomplete or unparsable flag, with the nearest right one.
    """
    plain, fields = _split_overrides(arguments) if overrides else (list(arguments), [])
    for argument in plain:
      self._demand_known(argument.split("=", 1)[0])
    options, extra = self.parse_known_args(plain)
    if extra:
      raise EagleError(f"{self.prog} takes no argument {extra[0]!r} (see {self.prog} --help)")
    return options, fields

  def _demand_known(self, flag: str) -> None:
    """Raises for an unknown flag, before argparse complains of what is missing instead."""
    if flag.startswith("--") and flag not in self.flags():
      hint = nearest(flag, self.flags())
      raise EagleError(f"{self.prog} has no flag {flag!r}{hint} (see {self.prog} --help)")


def _split_overrides(arguments: Sequence[str]) -> tuple[list[str], list[str]]:
  """Parts `--config.a.b value` and `--config.a.b=value` from all other arguments."""
  plain: list[str] = []
  fields: list[str] = []
  rest = iter(arguments)
  for argument in rest:
    if not argument.startswith(("--config.", "--noconfig.")):
      plain.append(argument)
    elif "=" in argument or argument.startswith("--noconfig."):
      fields.append(argument)
    else:
      value = next(rest, None)
      if value is None:
        raise EagleError(f"{argument} needs a value: {argument}=VALUE")
      fields.append(f"{argument}={value}")
  return plain, fields


def existing(path: str, *, what: str) -> str:
  """Returns `path` if something is there.

  Raises:
    EagleError: if not; names the deepest folder that exists and the nearest name in it.
  """
  if os.path.exists(path):
    return path
  wanted = pathlib.Path(path)
  folder = next((parent for parent in wanted.parents if parent.is_dir()), pathlib.Path("."))
  missing = wanted.relative_to(folder).parts[0] if wanted.is_relative_to(folder) else wanted.name
  hint = nearest(missing, (entry.name for entry in folder.iterdir()))
  raise EagleError(f"{what} {path!r} is not there: {str(folder)!r} has no {missing!r}{hint}")


def positive(text: str) -> int:
  """Reads a whole number of at least 1."""
  try:
    value = int(text)
  except ValueError:
    value = 0
  if value < 1:
    raise argparse.ArgumentTypeError(f"must be a whole number of at least 1, it is {text!r}")
  return value
