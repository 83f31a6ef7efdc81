"""From `--config=NAME[:ARG]` and `--config.a.b=value` to a validated experiment.

The values of overrides are read by ml_collections, so they mean what they mean in
every project that uses its flags; names are checked here first, for better errors.
"""

from __future__ import annotations

import argparse
import dataclasses
import functools
import importlib.util
import pathlib
import types
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from eagle_jax import config
from eagle_jax.errors import EagleError
from eagle_jax.registry import nearest

FLAG_HELP = """recipe and its argument, as in eagle_x5_vicuna_7b:finetune: the name of a file
in configs/, or a path to one; --config.FIELD=VALUE changes a field of it"""


def add_flag(parser: argparse.ArgumentParser, *, required: bool = True) -> None:
  """Adds `--config` to a verb."""
  parser.add_argument("--config", metavar="NAME[:ARG]", required=required, help=FLAG_HELP)


@dataclasses.dataclass(frozen=True)
class Loaded:
  """An experiment and what the command line changed in it.

  Attributes:
    experiment: validated.
    changes: dotted field → (value in the file, value of the command line).
  """

  experiment: config.Experiment
  changes: Mapping[str, tuple[Any, Any]]

  def describe_changes(self) -> str:
    """One line per changed field, or a line that says there is none."""
    lines = [f"  {field}: {old!r} -> {new!r}" for field, (old, new) in self.changes.items()]
    return "\n".join(["changed on the command line:", *lines]) if lines else "config as in its file"


def load(name: str, overrides: Sequence[str] = ()) -> Loaded:
  """Loads a recipe, applies overrides, validates.

  Args:
    name: `NAME[:ARG]`; NAME is a file of configs/ without ending, or a path to a `.py` file.
    overrides: each `--config.a.b=value`.

  Raises:
    EagleError: if there is no such recipe, field, or value of the field's type.
  """
  base = _call(find(name.split(":", 1)[0]), name)
  before = dict(_leaves(base.to_dict()))
  _override(base, overrides)
  values = base.to_dict()
  after = dict(_leaves(values))
  changes = {field: (before.get(field), after[field]) for field in after}
  return Loaded(
    experiment=config.from_mapping(values),
    changes={field: pair for field, pair in changes.items() if pair[0] != pair[1]},
  )


def optional(name: str | None, overrides: Sequence[str]) -> config.Experiment | None:
  """Returns the experiment of `--config`, None where it is not given.

  Raises:
    EagleError: for overrides without `--config`.
  """
  if name is not None:
    return load(name, overrides).experiment
  if overrides:
    raise EagleError(f"{overrides[0]} changes a recipe; name it with --config=NAME")
  return None


def described(
  name: str | None, overrides: Sequence[str], meta: Mapping[str, Any]
) -> config.Experiment:
  """Returns the experiment of `--config`, or else the one saved with a checkpoint.

  Raises:
    EagleError: if there is neither, or overrides without `--config`.
  """
  given = optional(name, overrides)
  if given is not None:
    return given
  if "config" not in meta:
    raise EagleError("this checkpoint says no config; use --config=NAME")
  return config.from_mapping(meta["config"])


def recipes() -> dict[str, pathlib.Path]:
  """Name → file of every recipe of the package `configs`."""
  spec = importlib.util.find_spec("configs")
  folders = list(spec.submodule_search_locations or ()) if spec else []
  return {
    path.stem: path
    for folder in folders
    for path in sorted(pathlib.Path(folder).glob("*.py"))
    if path.stem not in ("__init__", "base")
  }


def find(name: str) -> pathlib.Path:
  """Returns the file of a recipe given by name or path.

  Raises:
    EagleError: if there is none; names the nearest.
  """
  path = pathlib.Path(name)
  if path.suffix == ".py" and path.is_file():
    return path
  known = recipes()
  if path.suffix != ".py" and len(path.parts) == 1 and name in known:
    return known[name]
  raise EagleError(
    f"no config {name!r}{nearest(path.stem, known) or '.'} Known: {', '.join(sorted(known))}."
  )


def _call(path: pathlib.Path, name: str) -> Any:
  """Imports a recipe and returns what its `get_config` gives."""
  from ml_collections import ConfigDict

  spec = importlib.util.spec_from_file_location(f"eagle_recipe_{path.stem}", path)
  if spec is None or spec.loader is None:
    raise EagleError(f"config {str(path)!r} is no Python file")
  module = importlib.util.module_from_spec(spec)
  try:
    spec.loader.exec_module(module)
  except (SyntaxError, ImportError) as error:
    raise EagleError(f"config {str(path)!r} cannot be imported: {error}") from error
  values = _get_config(module, path)(*name.split(":", 1)[1:])
  if not isinstance(values, ConfigDict):
    raise EagleError(
      f"config {str(path)!r}: get_config must return a ConfigDict, it returns {type(values)}"
    )
  return values


def _get_config(module: types.ModuleType, path: pathlib.Path) -> Any:
  """Returns the function every recipe must have."""
  if not hasattr(module, "get_config"):
    raise EagleError(f"config {str(path)!r} has no function get_config(arg)")
  return module.get_config


def _leaves(values: Mapping[str, Any], place: str = "") -> Iterator[tuple[str, Any]]:
  """Yields (dotted field, value) of everything that holds no fields itself."""
  for name, value in values.items():
    if isinstance(value, Mapping):
      yield from _leaves(value, f"{place}{name}.")
    else:
      yield place + name, value


def _override(base: Any, overrides: Sequence[str]) -> None:
  """Applies overrides to a ConfigDict in place."""
  from absl import flags
  from ml_collections import config_flags

  arguments = [argument for text in overrides for argument in _checked(base, text)]
  private = flags.FlagValues()
  try:
    config_flags.DEFINE_config_dict(
      "config", base, flag_values=private, sys_argv=["eagle-jax", *arguments]
    )
    private(["eagle-jax", *arguments])
  except (flags.Error, TypeError, ValueError) as error:
    raise EagleError(_type_breach(base, overrides, str(error))) from None


def _type_breach(base: Any, overrides: Sequence[str], message: str) -> str:
  """The complaint of ml_collections as the sentence that `eagle_jax.config` would say."""
  for text in overrides:
    flag, _, value = text.partition("=")
    if f"{flag}=" in message:
      field = flag.split(".", 1)[1]
      kind = type(functools.reduce(lambda node, part: node[part], field.split("."), base))
      return f"config field '{field}' must be of type {kind.__name__}, it is {value!r}"
  return f"config override: {message.strip().splitlines()[0]}"


def _checked(base: Any, text: str) -> list[str]:
  """Checks the field of one override; returns the flags that ml_collections is to read.

  A tuple may be written `a,b`: it becomes one flag for each item.
  """
  flag, _, value = text.partition("=")
  field = flag.split(".", 1)[1]
  node, place = base, ""
  for part in field.split("."):
    names = list(node.keys()) if hasattr(node, "keys") else []
    if part not in names:
      raise EagleError(
        f"config has no field '{place}{part}'{nearest(part, names) or '.'} "
        + (f"Fields there: {', '.join(names)}." if names else f"'{place[:-1]}' holds no fields.")
      )
    node, place = node[part], f"{place}{part}."
  if hasattr(node, "keys"):
    raise EagleError(f"config field '{field}' holds fields: {', '.join(node.keys())}; set one")
  if isinstance(node, tuple) and not value.startswith(("(", "[")):
    return [f"{flag}={item}" for item in value.split(",")] if value else [f"{flag}=()"]
  return [text]
