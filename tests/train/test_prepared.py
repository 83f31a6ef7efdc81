"""A run made ready: what it began with is remembered, how long it is, what may change."""

import contextlib
import dataclasses
import errno
import json
import os

import pytest

from eagle_jax import checkpoint, config
from eagle_jax.errors import EagleError
from eagle_jax.model import eagle as eagle_lib
from eagle_jax.train import loop, metrics, prepared, state
from tests.interchange import foreign
from tests.train.small_run import MODEL, experiment


class Still:
  """A stream of batches that nobody asks for one."""

  def get_state(self):
    return 0

  def set_state(self, state):
    assert state == 0


def test_a_run_remembers_what_it_began_with(tmp_path, dataset, capsys):
  eagle = eagle_lib.build(MODEL)
  place = foreign.save(tmp_path / "model.safetensors", foreign.tensors(eagle, "whole"))
  chosen = experiment(dataset(5), steps=2, start_from=(place,), init_missing=False)
  folder = str(tmp_path / "run")
  ready = prepared.prepare(chosen, folder, num_records=5)
  stream = Still()
  with contextlib.closing(checkpoint.Checkpoints(folder, keep=2)) as checkpoints:
    current, done, begun_with = prepared.start(ready, checkpoints, stream)
    [told] = begun_with
    assert (done, told["place"], told["part"]) == (0, place, "whole")
    assert told["parameters"] == len(ready.abstract)
    assert json.loads((tmp_path / "run" / prepared.STARTED_FILE).read_text()) == begun_with
    assert f"starts from {place}: whole in the names of 'eagle'" in capsys.readouterr().out
    checkpoints.save(
      1,
      params=current.params(),
      optimizer=state.beside_params(current),
      data=stream,
      meta=prepared.describe(ready, begun_with),
    )
  with contextlib.closing(checkpoint.Checkpoints(folder, keep=2)) as checkpoints:
    assert prepared.start(ready, checkpoints, stream)[1:] == (1, begun_with)


def test_the_number_of_steps_must_not_follow_other_sources(tmp_path, dataset):
  chosen = experiment(dataset(5), steps=0)
  prepared.prepare(chosen, str(tmp_path), num_records=5)
  moved = dataclasses.replace(chosen.data, records="moved.json")
  with pytest.raises(EagleError, match=r"differs in data\.records.*where steps is given"):
    prepared.prepare(dataclasses.replace(chosen, data=moved), str(tmp_path), num_records=5)


def test_a_run_of_a_version_that_knew_fewer_fields_goes_on(tmp_path, dataset):
  chosen = experiment(dataset(5), steps=1)
  loop.run(chosen, str(tmp_path / "run"))
  path = tmp_path / "run" / prepared.CONFIG_FILE
  written = json.loads(path.read_text())
  del written["model"]["vocab_rows"]
  path.write_text(json.dumps(written))
  assert loop.run(chosen, str(tmp_path / "run")).steps == 1


def test_the_length_of_a_run_follows_from_its_epochs(tmp_path, dataset):
  chosen = experiment(dataset(10), steps=0, epochs=0.5)
  ready = prepared.prepare(chosen, str(tmp_path), num_records=10)
  assert ready.total_steps == 2


def test_a_full_disk_costs_what_is_said_of_sources_and_no_run(tmp_path, dataset, monkeypatch):
  ready = prepared.prepare(experiment(dataset(5)), str(tmp_path), num_records=5)

  def full(*_args):
    raise OSError(errno.ENOSPC, "No space left on device")

  with monkeypatch.context() as patched:
    patched.setattr(os, "pwrite", full)
    prepared.note_sources(ready, 0, [{"licence": "CC0"}])
  assert metrics.read(str(tmp_path), prepared.SOURCES_FILE) == []
  prepared.note_sources(ready, 2, [{"licence": "CC0"}])
  prepared.note_sources(ready, 4, [{"licence": "CC0"}])
  [row] = metrics.read(str(tmp_path), prepared.SOURCES_FILE)
  assert row == {"step": 2, "sources": [{"licence": "CC0"}]}


def test_a_run_goes_on_with_another_layout_and_other_things_kept(tmp_path, dataset):
  chosen = experiment(dataset(5), optimizer=config.Optimizer(accumulate=2))
  prepared.prepare(chosen, str(tmp_path), num_records=5)
  changed = dataclasses.replace(
    chosen,
    mesh=config.Mesh(whole=("vision/.*",)),
    model=dataclasses.replace(chosen.model, remat="names"),
    optimizer=dataclasses.replace(chosen.optimizer, gather_once=True),
  )
  ready = prepared.prepare(changed, str(tmp_path), num_records=5)
  kernel = ready.abstract["vision/clip/blocks/mlp/fc1/kernel"]
  assert kernel.sharding.is_fully_replicated
