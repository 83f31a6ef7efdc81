"""Packages that only the demonstrations need, imported when they are used."""

import importlib
from pathlib import Path
from types import ModuleType

from eagle_jax.errors import EagleError


def require(name: str, *, extra: str = "demo") -> ModuleType:
  """Returns the module `name` of an optional package.

  Args:
    name: of the module.
    extra: of this project that brings its package.

  Raises:
    EagleError: if its package is not installed; says how to install it.
  """
  try:
    return importlib.import_module(name)
  except ImportError as error:
    raise EagleError(
      f"the demo needs the package of {name!r}, which cannot be imported ({error}); "
      f"install it with: pip install 'eagle-jax[{extra}]'"
    ) from None


def shipped(name: str, *parts: str) -> Path:
  """Returns the path of a file that lies inside the package `name`.

  Raises:
    EagleError: if the package is not installed or has no such file. Nothing is ever fetched.
  """
  path = Path(str(require(name).__file__)).parent.joinpath(*parts)
  if not path.is_file():
    version = getattr(require(name), "__version__", "unknown")
    raise EagleError(
      f"the demo reads {'/'.join(parts)} from the package {name!r}, "
      f"which is not in its installed version {version}"
    )
  return path
