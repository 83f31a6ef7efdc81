"""A run in a process of its own that says when it is in a phase, and stays there for long."""

import hashlib
import os
import signal
import time
from unittest import mock

import jax

from eagle_jax import config
from eagle_jax.checkpoint import steps
from eagle_jax.cli import devices
from eagle_jax.data import pipeline
from eagle_jax.train import loop, prepared, step, stopping
from tests.train.small_run import experiment

LONG = 60.0
"""Seconds; nobody waits for them."""


TOGETHER = 1000
"""Updates of a run of two processes, of which few are done."""


def stall():
  time.sleep(LONG)


def compute():
  """In C, where no signal handler runs until it is over, like a compilation."""
  hashlib.pbkdf2_hmac("sha256", b"", b"", 10**9)


def before(owner, name, *, reached, call=1, then=stall):
  """Patches a function: its `call`-th call says so, and does something for long, first."""
  function, calls = getattr(owner, name), []

  def patched(*args, **options):
    calls.append(args)
    if len(calls) == call:
      reached.set()
      then()
    return function(*args, **options)

  mock.patch.object(owner, name, patched).start()


def train(data, workdir, phase, reached):
  """Runs the small experiment; `reached` is set in the phase."""
  signal.signal(signal.SIGINT, signal.default_int_handler)  # a suite in the background ignores it
  devices.start(1)
  stop = stopping.Stop()
  stop.install()
  if phase == "restore":
    before(prepared, "start", reached=reached)
  elif phase == "compile":
    before(step, "compile_step", reached=reached, then=compute)
  elif phase == "first data":
    before(pipeline.PlainBatches, "__next__", reached=reached)
  elif phase == "data":
    before(pipeline.PlainBatches, "__next__", reached=reached, call=4)
  elif phase == "save":
    before(steps, "commit", reached=reached, then=lambda: time.sleep(1))
  elif phase == "step":
    before(stopping.Stop, "reached", reached=reached, call=3, then=lambda: time.sleep(0.5))
  loop.run(small(data), workdir, stop=stop)
  os._exit(0)


def train_together(data, workdir, rank, port, reached):
  """Runs it as one of two processes, the second slow; `reached` is set after some updates."""
  devices.start(1)
  stop = stopping.Stop()
  stop.install()
  jax.config.update("jax_cpu_collectives_implementation", "gloo")
  jax.distributed.initialize(f"localhost:{port}", 2, rank)
  before(stopping.Stop, "reached", reached=reached, call=4, then=lambda: None)
  if rank == 1:  # and slow enough for the agreement, which looks once a second
    read = pipeline.PlainBatches.__next__

    def read_slowly(stream):
      time.sleep(0.2)
      return read(stream)

    mock.patch.object(pipeline.PlainBatches, "__next__", read_slowly).start()
  chosen = experiment(
    data, steps=TOGETHER, mesh=config.Mesh(), checkpoints=config.Checkpoints(every=TOGETHER)
  )
  loop.run(chosen, workdir, stop=stop)


def small(data):
  """A run of one device, long enough to be stopped in."""
  return experiment(
    data, steps=24, mesh=config.Mesh(), checkpoints=config.Checkpoints(every=4, keep=2)
  )
