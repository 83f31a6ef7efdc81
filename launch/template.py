"""Fills a YAML template; prints the result.

python3 launch/template.py launch/jobset.yaml name=eagle slices:=2 arguments@= -- train --config=…

`NAME=TEXT` gives a text, `NAME:=JSON` anything else, `NAME@=` the list of what follows `--`. A
value `$NAME` of the template becomes JSON, which is YAML too: no text can end a value early or
start another. A line that ends in `# if NAME` stays only where NAME is not empty, zero or false.
"""

from __future__ import annotations

import json
import pathlib
import re
import sys
from collections.abc import Mapping, Sequence
from typing import Any

PLACE = re.compile(r"\$([a-z_]+)")
CONDITION = re.compile(r"\s+# if ([a-z_]+)$")
GIVEN = re.compile(r"([a-z_]+)(=|:=|@=)(.*)", re.DOTALL)


class TemplateError(Exception):
  """The values do not fit the template."""


def parse(arguments: Sequence[str]) -> dict[str, Any]:
  """Reads values as the command line gives them.

  Raises:
    TemplateError: for what is none of the three forms.
  """
  cut = arguments.index("--") if "--" in arguments else len(arguments)
  values: dict[str, Any] = {}
  for argument in arguments[:cut]:
    given = GIVEN.fullmatch(argument)
    if not given:
      raise TemplateError(f"{argument!r} is none of NAME=TEXT, NAME:=JSON and NAME@=")
    name, kind, text = given.groups()
    try:
      values[name] = (
        text if kind == "=" else json.loads(text) if kind == ":=" else [*arguments[cut + 1 :]]
      )
    except json.JSONDecodeError as error:
      raise TemplateError(f"{argument!r}: {error}") from None
  return values


def scalar(name: str, value: Any) -> str:
  """The value as JSON that every YAML reader takes.

  Raises:
    TemplateError: for text with characters that YAML cannot hold as they are.
  """
  for text in value if isinstance(value, list) else [value]:
    if isinstance(text, str) and not text.isprintable():
      raise TemplateError(f"'{name}' holds a character that is not printable: {text!r}")
  return json.dumps(value, ensure_ascii=False)


def fill(template: str, values: Mapping[str, Any]) -> str:
  """Fills the template.

  Raises:
    TemplateError: for a name of the template without a value, or a value that no line names.
  """
  used: set[str] = set()

  def value(name: str) -> Any:
    used.add(name)
    if name not in values:
      raise TemplateError(f"the template names '{name}', given are: {', '.join(sorted(values))}")
    return values[name]

  lines = []
  for line in template.splitlines():
    condition = CONDITION.search(line)
    stays = not condition or value(condition[1])
    text = CONDITION.sub("", line)
    if not text.lstrip().startswith("#"):
      text = PLACE.sub(lambda place: scalar(place[1], value(place[1])), text)
    if stays:
      lines.append(text)
  unused = sorted(set(values) - used)
  if unused:
    raise TemplateError(f"no line of the template names {', '.join(unused)}")
  return "\n".join(lines) + "\n"


def main(arguments: Sequence[str]) -> int:
  """Prints the filled template; returns 2 with one line where the values do not fit."""
  if not arguments or arguments[0] in ("-h", "--help"):
    print(__doc__)
    return 0
  try:
    filled = fill(pathlib.Path(arguments[0]).read_text(), parse(arguments[1:]))
  except (TemplateError, OSError) as error:
    print(f"template: {error}", file=sys.stderr)
    return 2
  print(filled, end="")
  return 0


if __name__ == "__main__":
  sys.exit(main(sys.argv[1:]))
