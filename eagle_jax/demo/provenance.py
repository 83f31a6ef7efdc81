"""The files that are shipped with the demonstration, and where they come from.

`assets/` holds the tokenizer and the language model's weights, both made by
`eagle-jax demo --language-model`; SHA256SUMS and PROVENANCE.md are written with them.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path

from eagle_jax.errors import EagleError

ASSETS = Path(__file__).parent / "assets"

TOKENIZER = "tokenizer.model"
LANGUAGE_MODEL = "language.safetensors"

LIMIT = 3_000_000
"""Bytes that all shipped files may have together."""

_SUMS = "SHA256SUMS"
_STORY = "PROVENANCE.md"


def asset(name: str, folder: Path = ASSETS) -> Path:
  """Returns the path of a shipped file whose content is what SHA256SUMS says.

  Raises:
    EagleError: if the file or its sum is missing, or they differ.
  """
  path, sums = folder / name, folder / _SUMS
  if not path.is_file() or not sums.is_file():
    raise EagleError(
      f"the demo ships {name!r} and {_SUMS} in {str(folder)!r}, they are not both there; "
      "`eagle-jax demo --language-model` makes them anew"
    )
  known = dict(line.split("  ", 1)[::-1] for line in sums.read_text("ascii").splitlines())
  found = hashlib.sha256(path.read_bytes()).hexdigest()
  if known.get(name) != found:
    raise EagleError(f"{str(path)!r} has SHA-256 {found}, {_SUMS} says {known.get(name)}")
  return path


def ship(files: Mapping[str, bytes], facts: Mapping[str, str], folder: Path = ASSETS) -> None:
  """Writes files to be shipped, their sums, and where they come from.

  Args:
    files: name → content; whatever was shipped before stays, unless it has the same name.
    facts: what PROVENANCE.md tells, heading → text: data, licence, command, seed, versions.
    folder: where to.

  Raises:
    EagleError: if the folder would hold more than LIMIT bytes.
  """
  folder.mkdir(parents=True, exist_ok=True)
  held = {path.name: path.stat().st_size for path in folder.iterdir() if path.is_file()}
  size = sum((held | {name: len(content) for name, content in files.items()}).values())
  if size > LIMIT:
    raise EagleError(f"shipped files may have {LIMIT} bytes together, they would have {size}")
  for name, content in files.items():
    (folder / name).write_bytes(content)
  names = sorted(p.name for p in folder.iterdir() if p.name not in (_SUMS, _STORY))
  sums = {name: hashlib.sha256((folder / name).read_bytes()).hexdigest() for name in names}
  (folder / _SUMS).write_text("".join(f"{sums[n]}  {n}\n" for n in names), encoding="ascii")
  (folder / _STORY).write_text(_story(folder, sums, facts), encoding="utf-8")


def _story(folder: Path, sums: Mapping[str, str], facts: Mapping[str, str]) -> str:
  """Returns PROVENANCE.md: a table of the files, then the facts under their headings."""
  rows = "".join(
    f"| `{name}` | {(folder / name).stat().st_size:,} | `{digest}` |\n"
    for name, digest in sums.items()
  )
  told = "".join(f"\n## {heading}\n\n{text}\n" for heading, text in facts.items())
  return f"# Where these files come from\n\n| file | bytes | SHA-256 |\n|---|---|---|\n{rows}{told}"
