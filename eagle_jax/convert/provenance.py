"""Where converted parameters come from: enough to judge them, and to lead them back."""

from __future__ import annotations

import datetime
import importlib.metadata
import json
import platform
from collections.abc import Mapping
from typing import Any

from eagle_jax import __version__
from eagle_jax.convert import engine
from eagle_jax.convert.source import Source
from eagle_jax.types import Layout

FILE = "provenance.json"
PACKAGES = ("jax", "numpy", "orbax-checkpoint", "safetensors")


def record(
  plan: engine.Plan,
  source: Source,
  *,
  layouts: Mapping[str, Layout],
  notes: Mapping[str, Any],
) -> bytes:
  """Returns the provenance of a conversion as JSON.

  Args:
    plan: what was done.
    source: what was read.
    layouts: how the parameters were written.
    notes: anything else that should be known, JSON-able.
  """
  return json.dumps(
    {
      "source": source.description,
      "made": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
      "versions": {
        "eagle-jax": __version__,
        "Python": platform.python_version(),
        **{name: importlib.metadata.version(name) for name in PACKAGES},
      },
      **notes,
      "parameters": {path: layout.dtype.name for path, layout in sorted(layouts.items())},
      "tensors": {
        move.name: {
          "to": str(move.place),
          "transform": move.transform.name,
          "dtype": move.entry.dtype.name,
          "shape": list(move.entry.shape),
        }
        for move in plan.moves
      },
      "carried": list(plan.carried),
      "dropped": dict(plan.dropped),
    },
    indent=1,
  ).encode()
