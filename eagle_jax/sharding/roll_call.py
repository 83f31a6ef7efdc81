"""All processes of a run meet at the first one before any of them touches a device.

Where one does not come, or is not like the others, JAX waits without a word. So process 0
first listens where its coordination service will, on the same port and therefore behind the
same firewall, hears who is there and tells who is not. A line of JSON comes in, lines of JSON
go out; whatever else connects is hung up on. No one is authenticated: the service does not,
either, and nothing secret is said.
"""

from __future__ import annotations

import json
import selectors
import socket
import sys
import time
from typing import Any

from eagle_jax.errors import EagleError, PassingError
from eagle_jax.sharding import introduction
from eagle_jax.sharding.introduction import Introduction

TELL_EVERY = 60.0
"""Seconds between two words about who is missing."""
PULSE = 5.0
"""Seconds between two lines to those that wait."""
SILENCE = 30.0
"""Seconds after which a peer that says nothing is taken for gone."""
_LINGER = 10.0  # seconds for the rest to come and hear that there will be no run
_LONGEST = 1 << 20  # bytes of an introduction


def say(text: str) -> None:
  """Tells the person who started this process."""
  print(f"eagle-jax: {text}", file=sys.stderr, flush=True)


class _Guest:
  """A connection, and what came over it."""

  def __init__(self, connection: socket.socket):
    """Has heard nothing yet."""
    connection.setblocking(False)
    self.connection, self.since = connection, time.monotonic()
    self.received = b""
    self.said: Introduction | None = None

  def send(self, **message: Any) -> None:
    """Sends a line; that the other one is gone is noticed when it is listened to."""
    try:
      self.connection.sendall(json.dumps(message).encode() + b"\n")
    except OSError:
      return

  def listen(self) -> bool:
    """Takes what has come; returns whether the connection is still of use."""
    try:
      data = self.connection.recv(1 << 16)
      if not data or self.said:
        return bool(data)
      self.received += data
      if b"\n" in data:
        self.said = introduction.parse(self.received.split(b"\n")[0])
    except (OSError, ValueError):
      return False
    return len(self.received) <= _LONGEST


class RollCall:
  """What process 0 does."""

  def __init__(self, mine: Introduction, port: int, *, tell_every: float = TELL_EVERY):
    """Listens on all interfaces.

    Raises:
      PassingError: if the port is taken.
    """
    self._mine, self._port, self._every = mine, port, tell_every
    self._guests: list[_Guest] = []
    try:
      self._listener = _listen(port)
    except OSError as error:
      raise PassingError(f"{mine} cannot listen on port {port}: {error.strerror}") from None
    self._selector = selectors.DefaultSelector()
    self._selector.register(self._listener, selectors.EVENT_READ)

  def wait(self, timeout: float) -> list[Introduction]:
    """Returns what all processes say of themselves once they are there, and alike.

    Raises:
      PassingError: if some do not come within `timeout` seconds, naming them.
      EagleError: if some are not like this one, naming in what.
    """
    start = pulsed = told = time.monotonic()
    deadline, unlike = start + timeout, False
    try:
      while (missing := self._missing()) and (now := time.monotonic()) < deadline:
        if now - told >= self._every:
          told = now
          named = introduction.named(missing)
          say(f"{self._mine} has waited {now - start:.0f} s for {named} of {self._mine.count}")
        if now - pulsed >= min(PULSE, self._every):
          pulsed = now
          self._tell(missing=introduction.named(missing))
        self._listen(min(1.0, self._every / 4))
        if not unlike and self._differences():
          unlike, deadline = True, min(deadline, time.monotonic() + _LINGER)
      return self._verdict(missing, timeout)
    finally:
      self._close()

  def _verdict(self, missing: list[int], timeout: float) -> list[Introduction]:
    """Tells all that are there whether the run begins."""
    error: EagleError | None = None
    if found := self._differences():
      error = EagleError(f"the processes of a run must be alike: {'; '.join(found)}")
    elif missing:
      error = PassingError(
        f"{introduction.named(missing)} of {self._mine.count} did not come to {self._mine}, "
        f"port {self._port}, within {timeout:.0f} s"
      )
    if error:
      self._tell(refused=str(error), passing=isinstance(error, PassingError))
      raise error
    self._tell(go=True)
    return sorted([self._mine, *self._present()], key=lambda one: one.index)

  def _listen(self, seconds: float) -> None:
    """Takes what comes within some seconds, and hangs up on who is of no use."""
    for key, _ in self._selector.select(seconds):
      guest = key.data
      if guest is None:
        self._open()
      elif guest not in self._guests:
        continue  # a newcomer has just taken its place
      else:
        before = guest.said
        if not guest.listen():
          self._hang_up(guest)
        elif guest.said and not before:
          self._welcome(guest, guest.said)
    old = time.monotonic() - SILENCE
    for guest in [one for one in self._guests if not one.said and one.since < old]:
      self._hang_up(guest)

  def _open(self) -> None:
    """Takes a connection."""
    try:
      guest = _Guest(self._listener.accept()[0])
    except OSError:
      return  # it is gone already
    self._guests.append(guest)
    self._selector.register(guest.connection, selectors.EVENT_READ, guest)

  def _welcome(self, guest: _Guest, new: Introduction) -> None:
    """Gives a process its place; one that had the same number must go."""
    for other in [one for one in self._guests if one is not guest]:
      if other.said and other.said.index == new.index:
        other.send(refused=f"{new} has come in the place of {other.said}", passing=True)
        self._hang_up(other)
    if introduction.CLOCK_NOTE <= abs(new.ahead) < introduction.CLOCK_LIMIT:
      say(introduction.skew(new))

  def _hang_up(self, guest: _Guest) -> None:
    """Forgets a connection."""
    self._guests.remove(guest)
    self._selector.unregister(guest.connection)
    guest.connection.close()

  def _tell(self, **message: Any) -> None:
    """Sends a line to every process that is there."""
    for guest in self._guests:
      if guest.said:
        guest.send(**message)

  def _present(self) -> list[Introduction]:
    """Returns what those say that have come."""
    return [guest.said for guest in self._guests if guest.said]

  def _missing(self) -> list[int]:
    """Returns the numbers of those that have not."""
    here = {self._mine.index, *(one.index for one in self._present())}
    return [number for number in range(self._mine.count) if number not in here]

  def _differences(self) -> list[str]:
    """Returns in what those that have come are not like this one."""
    return [text for one in self._present() for text in introduction.differences(self._mine, one)]

  def _close(self) -> None:
    """Gives the port back."""
    for guest in list(self._guests):
      self._hang_up(guest)
    self._selector.close()
    self._listener.close()


def _listen(port: int) -> socket.socket:
  """Returns a socket that listens, for IPv6 as well where the machine has it."""
  both = socket.has_dualstack_ipv6()
  family = socket.AF_INET6 if both else socket.AF_INET
  listener = socket.create_server(("", port), family=family, backlog=1024, dualstack_ipv6=both)
  listener.setblocking(False)
  return listener
