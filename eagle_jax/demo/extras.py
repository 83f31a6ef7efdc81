"""Packages that only the demonstration needs, imported when they are used."""

import importlib
from pathlib import Path
from types import ModuleType

from eagle_jax.errors import EagleError


def require(name: str) -> ModuleType:
  """Returns the module `name` of an optional package.

  Raises:
    EagleError: if its package is not installed; says how to install it.
  """
  try:
    return importlib.import_module(name)
  except ImportError as error:
    raise EagleError(
      f"the demo needs the package of {name!r}, which cannot be imported ({error}); "
      "install it with: pip install 'eagle-jax[demo]'"
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
