"""Gives a command the variables by which several slices find each other, checked.

python3 launch/multislice.py --slices=2 -- eagle-jax train …

A host knows from its surroundings which slice it is in: a JobSet's labels (EAGLE_SLICE_ID and
EAGLE_SLICE_COORDINATOR in jobset.yaml), or the metadata of a TPU VM. Only where there is neither,
as under XPK, are MEGASCALE_* of the environment believed: they survive the slices they were made
for, and with those of another membership every process waits for ever.

Source: libtpu's variables as jax/_src/clusters/cloud_tpu_cluster.py reads them.
"""

from __future__ import annotations

import argparse
import os
import re
import sys
import urllib.error
import urllib.request
from collections.abc import Mapping

PREFIX = "MEGASCALE_"
NUM_SLICES, SLICE_ID, COORDINATOR, PORT = (
  PREFIX + name for name in ("NUM_SLICES", "SLICE_ID", "COORDINATOR_ADDRESS", "PORT")
)
FATAL = 43
"""Exit code that no launcher answers with a restart."""

METADATA = "http://{host}/computeMetadata/v1/instance/attributes/tpu-env"
METADATA_TIMEOUT = 5.0  # seconds; the server is on the host itself


class MembershipError(Exception):
  """The slices do not fit each other or the request."""


def from_jobset(environ: Mapping[str, str], slices: int) -> dict[str, str]:
  """The variables as the labels of a JobSet's pod give them; empty outside of one."""
  if "EAGLE_SLICE_ID" not in environ:
    return {}
  return {
    NUM_SLICES: str(slices),  # one replica of the JobSet per slice, from the same flag
    SLICE_ID: environ["EAGLE_SLICE_ID"],
    COORDINATOR: environ.get("EAGLE_SLICE_COORDINATOR", ""),
  }


def from_metadata(host: str) -> dict[str, str]:
  """The variables that a TPU VM's metadata server tells; empty where it tells none."""
  request = urllib.request.Request(
    METADATA.format(host=host), headers={"Metadata-Flavor": "Google"}
  )
  try:
    with urllib.request.urlopen(request, timeout=METADATA_TIMEOUT) as answer:
      text = answer.read().decode()
  except (urllib.error.URLError, OSError):
    return {}
  pairs = re.findall(r"^\s*(\w+)\s*:\s*'?(.*?)'?\s*$", text, re.MULTILINE)
  found = {name: value for name, value in pairs if name.startswith(PREFIX)}
  return found if NUM_SLICES in found else {}


def from_environment(environ: Mapping[str, str]) -> dict[str, str]:
  """The variables that were inherited."""
  return {name: value for name, value in environ.items() if name.startswith(PREFIX)}


def check(variables: Mapping[str, str], slices: int) -> None:
  """Holds the variables against the number of slices that was asked for.

  Raises:
    MembershipError: naming every variable that breaks a rule, with its value.
  """
  count, own = variables.get(NUM_SLICES, ""), variables.get(SLICE_ID, "")
  address, port = variables.get(COORDINATOR, ""), variables.get(PORT)
  host, _, inner = address.partition(":")
  ports = [text for text in (port, inner or None) if text is not None]
  rules = (
    (count == str(slices), f"{NUM_SLICES} is {count!r}, --slices is {slices}"),
    (
      own.isdecimal() and int(own) < slices,
      f"{SLICE_ID} must be one of 0 to {slices - 1}, it is {own!r}",
    ),
    (
      re.fullmatch(r"[A-Za-z0-9]([A-Za-z0-9.-]*[A-Za-z0-9])?", host) is not None,
      f"{COORDINATOR} must be HOST or HOST:PORT, it is {address!r}",
    ),
    (
      all(text.isdecimal() and 0 < int(text) < 65536 for text in ports),
      f"a port must be one of 1 to 65535: {PORT} is {port!r}, {COORDINATOR} {address!r}",
    ),
  )
  broken = [message for holds, message in rules if not holds]
  if broken:
    raise MembershipError("; ".join(broken))


def environment(environ: Mapping[str, str], slices: int) -> tuple[dict[str, str], list[str]]:
  """Makes the environment of the command.

  Args:
    environ: that of this process.
    slices: how many there are meant to be; of one, no variable stays.

  Returns:
    The new environment, and a line for each inherited variable that was not believed.

  Raises:
    MembershipError: if the slices do not fit.
  """
  inherited = from_environment(environ)
  live: dict[str, str] = {}
  if slices > 1:
    host = environ.get("GCE_METADATA_IP", "metadata.google.internal")
    live = from_jobset(environ, slices) or from_metadata(host) or inherited
    check(live, slices)
  notes = [
    f"{name}={value} was inherited, the slices say {live.get(name, 'none')}"
    for name, value in sorted(inherited.items())
    if live.get(name) != value
  ]
  rest = {name: value for name, value in environ.items() if name not in inherited}
  return rest | live, notes


def main() -> int:
  """Becomes the command; returns 43 where the slices do not fit, 127 without the command."""
  parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
  parser.add_argument("--slices", type=int, default=1, help="how many there are meant to be")
  parser.add_argument("command", nargs="+", help="what to run, after --")
  options = parser.parse_args()
  try:
    variables, notes = environment(os.environ, options.slices)
  except MembershipError as error:
    print(f"multislice: {error}", file=sys.stderr)
    return FATAL
  for note in notes:
    print(f"multislice: {note}", file=sys.stderr)
  try:
    os.execvpe(options.command[0], options.command, variables)
  except OSError as error:
    print(f"multislice: {options.command[0]}: {error.strerror}", file=sys.stderr)
    return 127


if __name__ == "__main__":
  sys.exit(main())
