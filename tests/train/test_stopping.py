"""SIGTERM in every phase: the run leaves soon, with the code that has it started again."""

import contextlib
import multiprocessing
import os
import signal
import socket
import threading
import time

import pytest

from eagle_jax import checkpoint
from eagle_jax.errors import PreemptedError
from eagle_jax.train import metrics, stopping
from tests.train import stoppable

PATIENCE = 200
"""Seconds until a child that should do something is given up."""


@pytest.fixture(scope="module")
def processes():
  """Children forked from a server that has everything imported, so that they start at once."""
  context = multiprocessing.get_context("forkserver")
  context.set_forkserver_preload(["tests.train.stoppable"])
  return context


def stopped_in(phase, processes, data, workdir, *, signals=(signal.SIGTERM, signal.SIGTERM)):
  """Runs until the phase, sends the signals; returns the exit code."""
  reached = processes.Event()
  child = processes.Process(target=stoppable.train, args=(data, str(workdir), phase, reached))
  child.start()
  try:
    assert reached.wait(PATIENCE)
    for number in signals:
      with contextlib.suppress(ProcessLookupError):  # gone after the first
        os.kill(child.pid, number)
      time.sleep(0.1)  # two that are pending at once are one
    child.join(stoppable.LONG / 2)
    assert not child.is_alive()
  finally:
    child.kill()
    child.join()
  return child.exitcode


def saved(workdir):
  return checkpoint.Checkpoints(str(workdir), keep=2).newest_good()


@pytest.mark.slow
@pytest.mark.parametrize("phase", ["restore", "first data", "compile"])
def test_before_the_first_update_it_leaves_at_once(phase, processes, tmp_path, dataset):
  run = tmp_path / "run"
  assert stopped_in(phase, processes, dataset(5), run) == PreemptedError.exit_code
  assert saved(run) is None


def finished(processes, data, workdir):
  """Runs to the end; returns what was measured."""
  child = processes.Process(target=stoppable.train, args=(data, str(workdir), "", None))
  child.start()
  child.join(PATIENCE)
  child.kill()
  assert child.exitcode == 0
  return metrics.read(str(workdir))


@pytest.mark.slow
def test_after_it_all_is_saved_and_the_run_goes_on_as_if_nothing_was(processes, tmp_path, dataset):
  data, run = dataset(5), tmp_path / "run"
  assert stopped_in("step", processes, data, run) == PreemptedError.exit_code
  assert saved(run) == 3
  assert stopped_in("save", processes, data, run) == PreemptedError.exit_code
  assert 4 <= saved(run) < stoppable.small(data).steps
  assert finished(processes, data, run) == finished(processes, data, tmp_path / "whole")


@pytest.mark.slow
def test_a_stalled_reader_does_not_hold_it_up(processes, tmp_path, dataset):
  run = tmp_path / "run"
  assert stopped_in("data", processes, dataset(5), run) == PreemptedError.exit_code
  assert saved(run) == 3


@pytest.mark.slow
def test_processes_stop_at_the_same_step_though_one_was_asked(tmp_path, dataset, capfd):
  data, run = dataset(5), tmp_path / "run"
  with socket.socket() as free:
    free.bind(("localhost", 0))
    port = free.getsockname()[1]
  context = multiprocessing.get_context("spawn")
  reached = context.Event()
  children = [
    context.Process(target=stoppable.train_together, args=(data, str(run), rank, port, reached))
    for rank in (0, 1)
  ]
  for child in children:
    child.start()
  try:
    assert reached.wait(PATIENCE)
    for _ in range(2):
      os.kill(children[1].pid, signal.SIGTERM)
      time.sleep(0.1)
    for child in children:
      child.join(PATIENCE)
    assert [child.exitcode for child in children] == [PreemptedError.exit_code] * 2
  finally:
    for child in children:
      child.kill()
      child.join()
  assert "the others wait for process 1: data; seconds per update:" in capfd.readouterr().out
  rows = metrics.read(str(run))
  assert 3 <= saved(run) == rows[-1]["step"] < stoppable.TOGETHER


@pytest.fixture
def stop():
  """One that hears signals; afterwards nothing does."""
  before = {number: signal.getsignal(number) for number in stopping.SIGNALS}
  for number in stopping.SIGNALS:
    signal.signal(number, signal.default_int_handler)
  stop = stopping.Stop()
  stop.working()  # or the test would end here
  stop.install()
  yield stop
  os.close(signal.set_wakeup_fd(-1))
  for number, handler in before.items():
    signal.signal(number, handler)


def test_a_signal_is_noticed_and_interrupts_waiting_alone(stop):
  with stop.waiting():
    assert not stop.asked
  os.kill(os.getpid(), signal.SIGTERM)
  assert stop.asked
  assert stop.reached(1)
  with pytest.raises(PreemptedError, match="before a batch"), stop.waiting():
    raise AssertionError("not entered")
  os.kill(os.getpid(), signal.SIGTERM)


def test_who_waits_is_interrupted(stop):
  threading.Timer(0.2, os.kill, (os.getpid(), signal.SIGTERM)).start()
  with pytest.raises(PreemptedError, match="while waiting"), stop.waiting():
    time.sleep(PATIENCE)


def test_the_second_ctrl_c_does_not_wait_for_the_save(stop):
  os.kill(os.getpid(), signal.SIGINT)
  assert stop.asked
  with pytest.raises(KeyboardInterrupt):
    os.kill(os.getpid(), signal.SIGINT)


def test_an_ignored_ctrl_c_stays_ignored():
  before = signal.signal(signal.SIGINT, signal.SIG_IGN)
  stop = stopping.Stop()
  terminate = signal.getsignal(signal.SIGTERM)
  stop.install()
  os.close(signal.set_wakeup_fd(-1))
  assert signal.getsignal(signal.SIGINT) == signal.SIG_IGN
  signal.signal(signal.SIGTERM, terminate)
  signal.signal(signal.SIGINT, before)


def test_who_asked_nobody_is_never_ended():
  stop = stopping.Stop()
  stop.leave("not installed")
  assert not stop.reached(1)
