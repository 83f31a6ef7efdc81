"""Where a stage's parameters come from: checkpoints and foreign files, alike to the last bit."""

import dataclasses
import json
from pathlib import Path

import ml_dtypes
import numpy as np
import pytest

from eagle_jax import checkpoint, config
from eagle_jax.errors import EagleError
from eagle_jax.interchange import incoming, upstream
from eagle_jax.model import eagle as eagle_lib
from eagle_jax.sharding.mesh import make_mesh
from eagle_jax.train import origins, state
from tests.interchange import foreign
from tests.train.conftest import MODEL


def saved(folder, params):
  checkpoint.save_params(str(folder), params, {})
  return str(folder)


def random(made, **marks):
  """Parameters by path; of an expert among the marks all have that value."""
  rng = np.random.default_rng(3)
  found = {}
  for path, leaf in made.abstract.items():
    mark = [value for name, value in marks.items() if f"/{name}/" in path]
    found[path] = np.float32(mark[0]) * np.ones(leaf.shape) if mark else rng.normal(size=leaf.shape)
  return {path: array.astype(np.float32) for path, array in found.items()}


def strict(made, *start_from, **changes):
  """The experiment that reads from `start_from` and draws only what its stage calls fresh."""
  values = dict(vars(made.experiment), init_missing=False, start_from=start_from)
  return config.Experiment(**{**values, **changes})


def begin(made, *start_from, **changes):
  return origins.parameters(strict(made, *start_from, **changes), made.eagle, made.abstract)


def test_a_stage_starts_from_checkpoints_by_pattern_and_draws_its_own_part(small, tmp_path):
  made = small("pretrain")
  drawn = random(made)
  clip = saved(
    tmp_path / "clip", {p: a for p, a in random(made, clip=0.25).items() if "/clip/" in p}
  )
  rest = saved(tmp_path / "rest", drawn)
  params, records = begin(made, f"vision/clip/.*={clip}", rest)
  assert (params["vision/clip/class_embedding"] == 0.25).all()
  np.testing.assert_array_equal(params["language/head/kernel"], drawn["language/head/kernel"])
  # The projector is new in this stage even though the checkpoint holds one.
  assert (params["projector/layer_0/kernel"] != drawn["projector/layer_0/kernel"]).any()
  assert [record.place for record in records] == [clip, rest]
  read = sum(not path.startswith("projector/") for path in made.abstract)
  assert sum(record.parameters for record in records) == read
  assert str(records[1]).startswith(f"starts from {rest}: checkpoint, ")


def test_a_tensor_that_no_checkpoint_holds_is_an_error(small, tmp_path):
  made = small("finetune")
  drawn = random(made)
  neck = drawn.pop("vision/sam/neck_norm/scale")
  folder = saved(tmp_path / "less", drawn)
  with pytest.raises(EagleError, match=r"1 are not there: vision/sam/neck_norm/scale"):
    begin(made, folder)
  # Whoever names a place by pattern wants it from nowhere else; without one, the next is asked.
  more = saved(tmp_path / "more", {"vision/sam/neck_norm/scale": neck})
  with pytest.raises(EagleError, match=r"1 are not there: vision/sam/neck_norm/scale"):
    begin(made, f".*={folder}", more)
  assert len(begin(made, folder, more)[1]) == 2


def test_starting_from_nothing_is_an_error_that_says_so(small):
  with pytest.raises(EagleError, match="starts from nothing"):
    begin(small("finetune"))


@pytest.fixture(scope="module")
def files(tmp_path_factory):
  """Foreign files of every part of the small model, one of each kind."""
  folder, eagle = tmp_path_factory.mktemp("foreign"), eagle_lib.build(MODEL)
  arrays = {
    "clip.bin": foreign.tensors(eagle, "clip", dtype=np.float16),
    "sam.pth": foreign.tensors(eagle, "sam"),
    "p.bin": foreign.tensors(eagle, "projector"),
    "llm/model.safetensors": foreign.tensors(eagle, "language", dtype=ml_dtypes.bfloat16),
  }
  clip, sam, projector, llm = (foreign.save(folder / name, a) for name, a in arrays.items())
  return {"clip": clip, "sam": sam, "projector": projector, "language": str(Path(llm).parent)}


def test_foreign_files_give_what_their_conversion_gives(small, files, tmp_path):
  made = small(mesh=make_mesh(config.Mesh(data=2, fsdp=2, tensor=2)))
  mixed = config.Experiment(name="m", model=config.Model(frozen_dtype="bfloat16"))
  frozen = small("pretrain").chosen
  made.abstract = state.abstract_params(made.eagle, mixed, frozen, mesh=made.mesh)
  for what, file in files.items():
    incoming.save(incoming.plan(file, what, made.experiment), str(tmp_path / what))
  ours = [str(tmp_path / what) for what in files]
  expected, _ = begin(made, *ours)
  got, records = begin(made, *files.values())
  assert got.keys() == expected.keys() == made.abstract.keys()
  for path, array in expected.items():
    assert (got[path].dtype, got[path].sharding) == (array.dtype, array.sharding)
    assert np.asarray(got[path]).tobytes() == np.asarray(array).tobytes(), path
  assert {(record.part, record.scheme) for record in records} == {
    ("clip", "eagle"),
    ("sam", "eagle"),
    ("projector", "eagle"),
    ("language", "hf"),
  }
  assert sum(record.parameters for record in records) == len(made.abstract)
  [language] = [record for record in records if record.part == "language"]
  assert language.read == 2 * sum(a.size for p, a in got.items() if p.startswith("language/"))
  assert "language in the names of 'hf'" in str(language)


def test_what_a_scheme_never_holds_is_missing_with_the_reason(small, files, tmp_path):
  made = small()
  meta = foreign.tensors(made.eagle, "sam", scheme="meta")
  files = {**files, "sam": foreign.save(tmp_path / "meta.pth", meta)}
  with pytest.raises(EagleError, match=r"3 are not there: .*neck_norm/scale \(EAGLE's own neck"):
    begin(made, *files.values())


def test_a_pattern_takes_its_share_of_a_merged_checkpoint(small, files, tmp_path):
  """Of one whose config.json tells another model, too."""
  made = small("pretrain")
  theirs = dataclasses.replace(made.experiment.model, experts=("sam@demo",))
  other = eagle_lib.build(theirs)
  arrays = foreign.tensors(other, "whole", seed=1)
  foreign.save(tmp_path / "merged" / "model.safetensors", arrays)
  told = upstream.write(theirs, other.size, dtype="float32")
  (tmp_path / "merged" / "config.json").write_text(json.dumps(told))
  merged = str(tmp_path / "merged")
  params, records = begin(made, f"vision/sam/.*={merged}", files["clip"], files["language"])
  name = "model.vision_tower.vision_towers.0.vision_tower.neck.layer_norm1.weight"
  np.testing.assert_array_equal(params["vision/sam/neck_norm/scale"], arrays[name])
  assert [record.part for record in records] == ["whole", "clip", "language"]


def test_another_vocabulary_names_the_field_to_set(small, files, tmp_path):
  made = small()
  arrays = foreign.tensors(made.eagle, "language")
  for name in ("model.embed_tokens.weight", "lm_head.weight"):
    arrays[name] = np.concatenate([arrays[name], arrays[name][:1]])
  file = foreign.save(tmp_path / "model.safetensors", arrays)
  others = [files[name] for name in ("clip", "sam", "projector")]
  told = r"language/embed/embedding in .* is \[513, 128\], the model's is .*vocab_rows=513$"
  with pytest.raises(EagleError, match=told):
    begin(made, file, *others)
  # What is not read from there may have any shape.
  with pytest.raises(EagleError, match="3 are not there: language/embed/embedding, language/final"):
    begin(made, f"language/layers/.*={file}", *others)


def test_files_that_do_not_fit_are_refused_with_all_that_is_wrong(small, tmp_path):
  made = small()
  arrays = foreign.tensors(made.eagle, "language")
  arrays["lm_head.bias"] = arrays.pop("model.norm.weight")
  arrays["lm_head.weight"] = arrays["lm_head.weight"][:, 1:].copy()
  with pytest.raises(EagleError) as error:
    begin(made, foreign.save(tmp_path / "model.safetensors", arrays))
  for told in (
    "'lm_head.bias' is known to no rule",
    "language/final_norm/scale is filled by no source tensor",
    "'lm_head.weight' has shape [512, 127]",
  ):
    assert told in str(error.value)


def test_a_place_must_be_something_to_start_from(small, tmp_path):
  made = small()
  with pytest.raises(EagleError, match="no complete checkpoint of eagle-jax, nor does it hold"):
    begin(made, str(tmp_path))
  with pytest.raises(EagleError, match="neither a file nor a folder"):
    begin(made, str(tmp_path / "nowhere"))
  with pytest.raises(EagleError, match=r"'vision/\(' is no pattern of paths"):
    begin(made, "vision/(=x")
