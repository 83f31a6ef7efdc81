"""The first process's part, with sockets of the test in place of the others."""

import concurrent.futures
import contextlib
import dataclasses
import json
import socket

import pytest

from eagle_jax.errors import EagleError, PassingError
from eagle_jax.sharding import introduction, roll_call

MINE = introduction.introduce(0, 3, {"config.seed": "0"})


@pytest.fixture
def call(monkeypatch):
  """Returns a function: the roll call of process 0 in a thread, and its port."""
  monkeypatch.setattr(roll_call, "_LINGER", 0.5)
  pool = concurrent.futures.ThreadPoolExecutor()

  def begin(timeout=20.0, tell_every=0.2):
    with socket.create_server(("", 0)) as free:
      port = free.getsockname()[1]
    held = roll_call.RollCall(MINE, port, tell_every=tell_every)
    return pool.submit(held.wait, timeout), port

  yield begin
  pool.shutdown()


@pytest.fixture
def come():
  """Returns a function: a connection of a process that says so of itself, open until the end."""
  with contextlib.ExitStack() as stack:

    def connect(port, index, *, ahead=0.0, **changes):
      connection = stack.enter_context(socket.create_connection(("127.0.0.1", port), timeout=30))
      line = json.loads(dataclasses.replace(MINE, index=index, **changes).line())
      said = {**line, "clock": line["clock"] + ahead}
      connection.sendall(json.dumps(said).encode() + b"\n")
      return connection

    yield connect


def answers(connection):
  """Returns all that the first process said until it hung up."""
  with connection, connection.makefile("rb") as lines:
    return [json.loads(line) for line in lines]


def test_all_are_told_to_go_and_the_port_is_free_again(call, come):
  held, port = call()
  others = [come(port, 2), come(port, 1, pid=11)]
  assert [one.index for one in held.result(30)] == [0, 1, 2]
  assert [answers(other)[-1] for other in others] == [{"go": True}] * 2
  socket.create_server(("", port)).close()


def test_who_is_missing_is_named_again_and_again(call, come, capsys):
  held, port = call(timeout=1.0)
  other = come(port, 1)
  with pytest.raises(
    PassingError, match=r"process 2 of 3 did not come to process 0 \(.*within 1 s"
  ):
    held.result(30)
  heard = answers(other)
  assert {"missing": "process 2"} in heard
  assert heard[-1]["passing"]
  assert "process 2 of 3 did not come" in heard[-1]["refused"]
  said = capsys.readouterr().err.splitlines()
  assert sum(line.endswith("for process 2 of 3") for line in said) > 1


def test_one_that_left_is_missing_again(call, come):
  held, port = call()
  come(port, 1).close()
  come(port, 2)
  with pytest.raises(concurrent.futures.TimeoutError):
    held.result(1)
  come(port, 1)
  assert len(held.result(30)) == 3


def test_all_hear_in_what_one_differs(call, come):
  held, port = call()
  others = [come(port, 1, versions={**MINE.versions, "jax": "0.0"}), come(port, 2, count=4)]
  with pytest.raises(EagleError, match=r"process 1 .* has jax 0\.0, process 0") as raised:
    held.result(30)
  assert "has --processes 4, process 0" in str(raised.value)
  assert not isinstance(raised.value, PassingError)
  assert all(not answers(other)[-1]["passing"] for other in others)


def test_one_that_differs_is_not_waited_with(call, come):
  held, port = call()
  other = come(port, 1, fields={"config.seed": "1"})
  with pytest.raises(EagleError, match=r"has config.seed 1, process 0 .* has 0"):
    held.result(30)
  assert "config.seed" in answers(other)[-1]["refused"]


def test_the_last_to_come_with_a_number_has_it(call, come):
  held, port = call()
  first = come(port, 1, pid=11)
  come(port, 1, pid=12)
  assert "pid 12) has come in the place of process 1" in answers(first)[-1]["refused"]
  come(port, 2)
  assert [one.pid for one in held.result(30)] == [MINE.pid, 12, MINE.pid]


def test_a_clock_that_is_a_little_wrong_is_told(call, come, capsys):
  held, port = call()
  come(port, 1, ahead=20)
  come(port, 2)
  held.result(30)
  assert "s ahead of that of process 0" in capsys.readouterr().err


@pytest.mark.parametrize("noise", [b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", b"\n", b"[1]\n", b"\xff\n"])
def test_whatever_else_connects_is_hung_up_on(call, come, noise):
  held, port = call()
  stranger = socket.create_connection(("127.0.0.1", port), timeout=30)
  stranger.sendall(noise)
  assert stranger.recv(1) == b""
  silent = socket.create_connection(("127.0.0.1", port), timeout=30)
  come(port, 1)
  come(port, 2)
  assert len(held.result(30)) == 3
  stranger.close()
  silent.close()


def test_a_stranger_may_not_talk_for_ever(call, come, monkeypatch):
  monkeypatch.setattr(roll_call, "_LONGEST", 1000)
  held, port = call()
  with socket.create_connection(("127.0.0.1", port), timeout=30) as stranger:
    with contextlib.suppress(ConnectionResetError, BrokenPipeError):
      stranger.sendall(b"x" * 10000)
    with contextlib.suppress(ConnectionResetError):
      assert stranger.recv(1) == b""
  come(port, 1)
  come(port, 2)
  assert len(held.result(30)) == 3


def test_a_port_that_is_taken_is_told():
  with socket.create_server(("", 0)) as taken:
    port = taken.getsockname()[1]
    with pytest.raises(PassingError, match=f"cannot listen on port {port}"):
      roll_call.RollCall(MINE, port)
