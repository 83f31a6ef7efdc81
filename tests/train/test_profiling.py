"""Traces on a CPU."""

import jax
import jax.numpy as jnp
import pytest

from eagle_jax.errors import EagleError
from eagle_jax.train import profiling


def updates(profiler, first, last):
  function = jax.jit(lambda x: jnp.sin(x).sum())
  for done in range(first, last + 1):
    profiler.step(done, {"loss": function(jnp.ones((4,)))})


def traces(folder):
  return list((folder / profiling.FOLDER).rglob("*.xplane.pb"))


def test_the_updates_asked_for_are_traced(tmp_path, capsys):
  profiler = profiling.Profiler(str(tmp_path), done=0, wanted=(1, 3))
  updates(profiler, 1, 2)
  assert not traces(tmp_path)
  updates(profiler, 3, 4)
  assert len(traces(tmp_path)) == 1
  assert capsys.readouterr().err.count("trace written to") == 1


def test_a_file_in_the_folder_asks_for_a_trace_of_the_next_updates(tmp_path, monkeypatch):
  began = []
  monkeypatch.setattr(jax.profiler, "start_trace", lambda folder: began.append(str(folder)))
  monkeypatch.setattr(jax.profiler, "stop_trace", lambda: began.append("stopped"))
  monkeypatch.setattr(profiling, "LOOK_SECONDS", 0.0)
  profiler = profiling.Profiler(str(tmp_path), done=0)
  updates(profiler, 1, 4)
  assert began == []
  (tmp_path / profiling.REQUEST_FILE).touch()
  updates(profiler, 5, 7)
  assert began == [str(tmp_path / profiling.FOLDER)]
  updates(profiler, 8, 9)
  assert began[1:] == ["stopped"]
  assert not (tmp_path / profiling.REQUEST_FILE).exists()


@pytest.mark.parametrize(("done", "begins"), [(0, True), (2, True), (3, False)])
def test_a_run_that_goes_on_traces_what_is_left(tmp_path, monkeypatch, done, begins):
  began = []
  monkeypatch.setattr(jax.profiler, "start_trace", began.append)
  monkeypatch.setattr(jax.profiler, "stop_trace", lambda: None)
  profiler = profiling.Profiler(str(tmp_path), done=done, wanted=(0, 3))
  assert bool(began) == begins
  profiler.close()


def test_a_trace_that_cannot_be_made_ends_nothing(tmp_path, monkeypatch, capsys):
  def refuse(*folder):
    raise RuntimeError("another trace is under way")

  monkeypatch.setattr(jax.profiler, "start_trace", refuse)
  updates(profiling.Profiler(str(tmp_path), done=0, wanted=(0, 2)), 1, 3)
  monkeypatch.setattr(jax.profiler, "start_trace", lambda folder: None)
  monkeypatch.setattr(jax.profiler, "stop_trace", refuse)
  updates(profiling.Profiler(str(tmp_path), done=0, wanted=(0, 2)), 1, 3)
  told = capsys.readouterr().err.splitlines()
  assert told == [
    "no trace after update 0: another trace is under way",
    "a trace could not be written: another trace is under way",
  ]


def test_spans_are_read():
  assert profiling.parse("10:13") == (10, 13)


@pytest.mark.parametrize("text", ["10", "13:10", "a:b", ":", "-1:3", "3:3"])
def test_spans_that_are_none_are_refused(text):
  with pytest.raises(EagleError, match=r"FROM:TO with FROM < TO, as 10:13: "):
    profiling.parse(text)
