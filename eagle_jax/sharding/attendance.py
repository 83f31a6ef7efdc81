"""A process other than the first goes to the roll call, and waits for its end."""

from __future__ import annotations

import json
import socket
import time
from typing import Any

from eagle_jax.errors import EagleError, PassingError
from eagle_jax.sharding.introduction import Introduction
from eagle_jax.sharding.roll_call import SILENCE, TELL_EVERY, say

_AGAIN = 0.5  # seconds between two attempts to reach process 0


class Attendance:
  """What all processes but the first do."""

  def __init__(
    self, mine: Introduction, address: tuple[str, int], *, tell_every: float = TELL_EVERY
  ):
    """Does nothing yet; `address` is host and port of process 0."""
    self._mine, self._address, self._every = mine, address, tell_every
    self._start = self._told = time.monotonic()

  def wait(self, timeout: float) -> None:
    """Returns once all processes are there, and alike.

    Raises:
      PassingError: if process 0 cannot be reached for `timeout` seconds, or does not see all.
      EagleError: if some process is not like process 0.
    """
    self._start = self._told = time.monotonic()
    place = "{}:{}".format(*self._address)
    while True:
      try:
        return self._converse()
      except ValueError:
        reason = "what answers there is not this roll call; perhaps an older run still goes on"
      except OSError as error:
        reason = error.strerror or str(error)
      if time.monotonic() - self._start > timeout:
        raise PassingError(
          f"{self._mine} did not reach process 0 at {place} within {timeout:.0f} s: {reason}"
        )
      self._tell(f"process 0 at {place}: {reason}")
      time.sleep(min(_AGAIN, self._every))

  def _converse(self) -> None:
    """Says who this is and listens until process 0 has decided.

    Raises:
      OSError: if process 0 cannot be reached, or hangs up.
      ValueError: if it says something else.
    """
    with socket.create_connection(self._address, timeout=SILENCE) as connection:
      connection.sendall(self._mine.line())
      with connection.makefile("rb") as lines:
        for line in lines:
          if self._heard(json.loads(line)):
            return
    raise ConnectionResetError(0, "it hung up")

  def _heard(self, message: Any) -> bool:
    """Takes a line of process 0; returns whether the run begins."""
    if not isinstance(message, dict):
      raise ValueError("not an object")
    if "refused" in message:
      raise (PassingError if message.get("passing") else EagleError)(message["refused"])
    if "missing" in message:
      self._tell(f"{message['missing']} of {self._mine.count}")
    return "go" in message

  def _tell(self, whom: str) -> None:
    """Says now and then for whom this waits."""
    now = time.monotonic()
    if now - self._told >= self._every:
      self._told = now
      say(f"{self._mine} has waited {now - self._start:.0f} s for {whom}")
