"""What a checkpoint descends from: checkpoints and foreign files, as far as they are there."""

import dataclasses
import shutil

import numpy as np
import pytest
from safetensors.numpy import load_file

from eagle_jax import checkpoint, config
from eagle_jax.interchange import incoming, lineage, outgoing
from eagle_jax.model import eagle as eagle_lib
from tests.interchange import foreign

MODEL = config.Model(experts=("clip@demo",), language="demo", image_size=64, grid_side=4)
EXPERIMENT = config.Experiment(name="test", model=MODEL)
NORM = "vision_model.post_layernorm.weight"
IN_WHOLE = f"model.vision_tower.vision_towers.0.vision_tower.{NORM}"


@pytest.fixture
def original(tmp_path):
  """A merged checkpoint with a tensor that no parameter stands for, and a tokenizer."""
  arrays = foreign.tensors(eagle_lib.build(MODEL), "whole")
  folder = tmp_path / "original"
  foreign.save(folder / "model.safetensors", arrays | {IN_WHOLE: np.full(64, 3, np.float32)})
  (folder / "tokenizer.model").write_bytes(b"theirs")
  return folder


def run(folder, params, *start_from, started=()):
  """What a stage leaves behind that started from these places."""
  experiment = dataclasses.replace(EXPERIMENT, start_from=start_from)
  told = [{"place": str(place), "part": part, "scheme": "eagle"} for place, part in started]
  meta = {"config": dataclasses.asdict(experiment), "started_from": told}
  checkpoint.save_params(str(folder), params, meta)
  return folder


def test_checkpoints_and_foreign_files_are_ancestors(original, tmp_path):
  incoming.save(incoming.plan(str(original), "whole", EXPERIMENT), str(tmp_path / "imported"))
  params = {"language/final_norm/scale": np.zeros(1, np.float32)}
  first = run(tmp_path / "first", params, str(tmp_path / "imported"), "/gone")
  arrays = foreign.tensors(eagle_lib.build(MODEL), "clip")
  clip = foreign.save(tmp_path / "clip.bin", arrays)
  (tmp_path / "unread").mkdir()
  entries = (f"vision/.*={clip}", str(tmp_path / "unread"), str(first))
  second = run(tmp_path / "second", params, *entries, started=((clip, "clip"),))
  found = list(lineage.of(str(second)))
  places = [second, tmp_path / "clip.bin", first, tmp_path / "imported"]
  assert [ancestor.place for ancestor in found] == places
  assert [set(ancestor.parts) for ancestor in found] == [set(), {"clip"}, set(), {"whole"}]
  assert [set(ancestor.companions) for ancestor in found] == [set()] * 3 + [{"tokenizer.model"}]
  assert set(found[1].tensors.entries()) == set(arrays)
  assert set(found[3].tensors.entries()) == {IN_WHOLE}


@pytest.mark.parametrize("what", ["whole", "clip"])
def test_a_run_from_foreign_files_leaves_as_one_from_their_conversion(original, tmp_path, what):
  imported = tmp_path / "imported"
  incoming.save(incoming.plan(str(original), "whole", EXPERIMENT), str(imported))
  params = {path: np.asarray(a) for path, a in checkpoint.open_params(str(imported)).items()}
  converted = run(tmp_path / "converted", params, str(imported))
  direct = run(tmp_path / "direct", params, str(original), started=((original, "whole"),))
  left = []
  for made in (converted, direct):
    target = tmp_path / f"{made.name}-back"
    files = outgoing.export(str(made), str(target), what=what, experiment=EXPERIMENT)
    left.append({name: (target / name).read_bytes() for name in files})
  assert left[0] == left[1]
  tensors = load_file(tmp_path / "direct-back" / "model.safetensors")
  assert tensors[IN_WHOLE if what == "whole" else NORM].sum() == 3 * 64
  shutil.rmtree(original)
  assert [ancestor.place for ancestor in lineage.of(str(direct))] == [direct]
