"""What a run tells while it goes."""

import errno
import os

import jax
import jax.numpy as jnp
import pytest

from eagle_jax.train import metrics, phases, prepared, telemetry, tensorboard, work
from tests.train.small_run import experiment

BATCH = {
  work.TOKENS: 150.0,
  work.POSITIONS: 192.0,
  work.IMAGE_TOKENS: 16.0,
  work.PAIRS: 3000.0,
  work.TARGETS: 40.0,
}


@pytest.fixture
def ready(tmp_path, dataset):
  chosen = experiment(dataset(5), steps=5, log_every=2)
  return prepared.prepare(chosen, str(tmp_path / "run"), num_records=5)


def step(told, *steps):
  values = {name: jnp.float32(value) for name, value in BATCH.items()}
  return [told.step(n, {"loss": jnp.float32(n), **values}) for n in steps]


def test_only_logged_updates_are_written_and_the_last_always(ready):
  told = telemetry.Telemetry(ready, 0)
  assert step(told, 1, 2, 3, 4, 5) == [False, True, False, True, True]
  told.close()
  rows = metrics.read(ready.workdir)
  assert [(row["step"], row["loss"]) for row in rows] == [(2, 2.0), (4, 4.0), (5, 5.0)]
  assert rows[-1]["lr"] == pytest.approx(0, abs=1e-5)
  assert told.loss == 5
  assert rows[0].keys() == {"step", "loss", "lr", *BATCH}


def test_what_the_clock_says_is_kept_apart_over_all_attempts(ready, capsys):
  phase = phases.Phases()
  with phase(phases.RESTORE):
    pass
  told = telemetry.Telemetry(ready, 0, current=phase)
  step(told, 1, 2, 3)
  told.close()
  told = telemetry.Telemetry(ready, 2)
  step(told, 3, 4, 5)
  told.close()
  rows = metrics.read(ready.workdir, metrics.SPEED_FILE)
  known = [(row["attempt"], row["step"], row["updates"]) for row in rows]
  first = [(1, 0, 0), (1, 2, 2), (1, 3, 1)]
  assert known == [*first, (2, 2, 0), (2, 4, 2), (2, 5, 1), (2, 5, 0)]
  assert rows[1]["seconds/restore"] > 0
  assert rows[1]["tokens_per_second"] / rows[1]["images_per_second"] == pytest.approx(150 / 4)
  assert "mfu" not in rows[1]  # nobody knows a CPU's peak
  assert rows[1]["memory/host_peak"] > 0
  told = capsys.readouterr()
  assert told.out.count("goodput: ") == 2
  assert "updates done again" in told.out.splitlines()[-1]
  assert "5/5" in told.err
  assert "tokens/s" in told.err


def test_a_finished_run_adds_nothing(ready):
  told = telemetry.Telemetry(ready, 0)
  step(told, 1, 2, 3, 4, 5)
  told.close()
  before = {path: path.stat().st_size for path in files(ready)}
  telemetry.Telemetry(ready, 5).close()
  assert {path: path.stat().st_size for path in files(ready)} == before


def files(ready):
  folder = prepared.pathlib.Path(ready.workdir)
  return [
    path
    for name in (metrics.FILE, metrics.SPEED_FILE, tensorboard.FOLDER)
    for path in (folder / name, *(folder / name).glob("*"))
    if path.is_file()
  ]


def test_one_process_of_several_writes(ready, monkeypatch, capsys):
  monkeypatch.setattr(jax, "process_index", lambda: 1)
  told = telemetry.Telemetry(ready, 0)
  assert step(told, 1, 2, 3, 4, 5) == [False, True, False, True, True]
  told.close()
  assert told.loss == 5
  assert files(ready) == []
  assert capsys.readouterr().err == ""


def test_a_full_disk_does_not_end_the_run(ready, monkeypatch, capsys):
  told = telemetry.Telemetry(ready, 0)
  step(told, 1, 2)

  def full(*arguments):
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

  with monkeypatch.context() as patched:
    patched.setattr(os, "pwrite", full)
    step(told, 3, 4)
  step(told, 5)
  told.close()
  assert [row["step"] for row in metrics.read(ready.workdir)] == [2, 5]
  said = capsys.readouterr().err
  assert said.count("No space left on device") == 3  # once for each file
  assert said.count(" lacks 1 piece") == 3


def test_updates_are_traced_where_that_is_asked_for(ready, monkeypatch):
  began = []
  monkeypatch.setattr(jax.profiler, "start_trace", began.append)
  monkeypatch.setattr(jax.profiler, "stop_trace", lambda: began.append("stopped"))
  told = telemetry.Telemetry(ready, 0, profile=(1, 3))
  step(told, 1, 2, 3)
  assert len(began) == 2
  step(told, 4, 5)
  told.close()
  assert began[1:] == ["stopped"]
