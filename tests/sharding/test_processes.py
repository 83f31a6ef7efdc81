import socket
import threading

import jax
import pytest

from eagle_jax.errors import EagleError, PassingError
from eagle_jax.sharding import processes

SLURM = {
  "SLURM_JOB_ID": "7",
  "SLURM_STEP_NODELIST": "node[001-004]",
  "SLURM_NTASKS": "4",
  "SLURM_PROCID": "2",
  "SLURM_LOCALID": "0",
}


@pytest.fixture
def free_port():
  with socket.create_server(("", 0)) as free:
    return free.getsockname()[1]


@pytest.fixture
def asked(monkeypatch):
  """What JAX was asked to join with; nothing is joined."""
  seen = []
  monkeypatch.setattr(
    jax.distributed, "initialize", lambda *place, **more: seen.append((place, more))
  )
  return seen


def test_a_place_is_found_where_slurm_tells_it(monkeypatch):
  for name, value in SLURM.items():
    monkeypatch.setenv(name, value)
  found = processes.detect(5)
  assert (found.address[0], found.count, found.index, found.named) == ("node001", 4, 2, False)
  monkeypatch.setenv("JAX_COORDINATOR_ADDRESS", "[::1]:99")
  assert processes.detect(5).address == ("::1", 99)


def test_no_place_to_be_found_is_told(monkeypatch):
  monkeypatch.delenv("JAX_COORDINATOR_ADDRESS", raising=False)
  with pytest.raises(EagleError, match=r"finds no TPU slice, .* --coordinator=HOST:PORT"):
    processes.detect(1)


def test_jax_is_given_place_and_limits(asked, monkeypatch):
  met = []
  monkeypatch.setattr(processes, "meet", lambda *given: met.append(given))
  place = processes.Place("host:9", 2, 1)
  processes.join(place, {"a": "1"}, timeout=1800, heartbeat=60)
  assert met == [(place, {"a": "1"}, 1800)]
  [(given, more)] = asked
  assert given == ("host:9", 2, 1)
  assert more == {
    "cluster_detection_method": "deactivate",
    "initialization_timeout": 1800,
    "heartbeat_timeout_seconds": 60,
    "shutdown_timeout_seconds": 60,
  }


def test_one_that_is_alone_meets_nobody(asked):
  processes.join(processes.Place("host:9", 1, 0, named=False), {}, timeout=5, heartbeat=5)
  assert asked[0][1]["cluster_detection_method"] is None


def test_a_join_that_fails_may_pass(monkeypatch):
  def fail(*_place, **_more):
    raise RuntimeError("DEADLINE_EXCEEDED")

  monkeypatch.setattr(jax.distributed, "initialize", fail)
  with pytest.raises(PassingError, match="process 0 cannot join the others: DEADLINE_EXCEEDED"):
    processes.join(processes.Place("host:9", 1, 0), {}, timeout=5, heartbeat=5)


def test_all_meet_where_the_coordinator_will_be(free_port, capsys):
  places = [processes.Place(f"localhost:{free_port}", 2, index) for index in (0, 1)]
  other = threading.Thread(target=processes.meet, args=(places[1], {}, 60))
  other.start()
  processes.meet(places[0], {}, 60)
  other.join(60)
  assert not other.is_alive()
  assert capsys.readouterr().out.startswith("joined: process 0 (")
