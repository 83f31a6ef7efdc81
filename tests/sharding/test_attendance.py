"""The other processes' part, against the first one's or something in its place."""

import concurrent.futures
import dataclasses
import socket
import threading

import pytest

from eagle_jax.errors import EagleError, PassingError
from eagle_jax.sharding import attendance, introduction, roll_call

FIRST = introduction.introduce(0, 2, {})
OTHER = dataclasses.replace(FIRST, index=1)


@pytest.fixture
def port():
  with socket.create_server(("", 0)) as free:
    return free.getsockname()[1]


def goes(port, other=OTHER):
  return attendance.Attendance(other, ("127.0.0.1", port), tell_every=0.2)


def test_it_may_come_before_the_first(port):
  with concurrent.futures.ThreadPoolExecutor() as pool:
    waiting = pool.submit(goes(port).wait, 60)
    with pytest.raises(concurrent.futures.TimeoutError):
      waiting.result(0.5)
    present = roll_call.RollCall(FIRST, port, tell_every=0.2).wait(60)
    waiting.result(30)
  assert [str(one) for one in present] == [str(FIRST), str(OTHER)]


def test_it_hears_that_others_are_missing(port, capsys):
  one, two = (dataclasses.replace(FIRST, index=index, count=3) for index in (0, 1))
  with concurrent.futures.ThreadPoolExecutor() as pool:
    waiting = pool.submit(goes(port, two).wait, 60)
    held = pool.submit(roll_call.RollCall(one, port, tell_every=0.2).wait, 2)
    with pytest.raises(PassingError, match="process 2 of 3 did not come"):
      waiting.result(30)
    with pytest.raises(PassingError, match="process 2 of 3 did not come"):
      held.result(30)
  said = capsys.readouterr().err
  assert f"{two} has waited" in said
  assert "for process 2 of 3" in said


def test_it_hears_in_what_it_differs(port, monkeypatch):
  monkeypatch.setattr(roll_call, "_LINGER", 0.2)
  other = dataclasses.replace(OTHER, versions={**OTHER.versions, "jaxlib": "0.0"})
  with concurrent.futures.ThreadPoolExecutor() as pool:
    held = pool.submit(roll_call.RollCall(FIRST, port).wait, 60)
    with pytest.raises(EagleError, match=r"has jaxlib 0\.0, process 0"):
      goes(port, other).wait(30)
    with pytest.raises(EagleError, match=r"has jaxlib 0\.0, process 0"):
      held.result(30)


def test_a_first_that_does_not_come_is_named(port, capsys):
  with pytest.raises(PassingError, match=f"not reach process 0 at 127.0.0.1:{port} within 1 s"):
    goes(port).wait(1)
  assert f"for process 0 at 127.0.0.1:{port}: " in capsys.readouterr().err


@pytest.mark.parametrize(
  ("answer", "reason"),
  [(b"\x00\x00\x18\x04\n", "older run"), (b"[]\n", "older run"), (b"", "hung up")],
)
def test_another_program_in_its_place_is_told(port, answer, reason):
  with socket.create_server(("", port)) as server:

    def serve():
      while True:
        try:
          connection = server.accept()[0]
        except OSError:
          return
        with connection:
          connection.recv(1 << 16)
          connection.sendall(answer)

    threading.Thread(target=serve, daemon=True).start()
    with pytest.raises(PassingError, match=reason):
      goes(port).wait(0.5)
    server.shutdown(socket.SHUT_RDWR)
