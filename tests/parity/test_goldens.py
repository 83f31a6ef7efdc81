"""How golden files are found, referred to and compared with; what must not pass, does not."""

import json

import numpy as np
import pytest

from tests.parity import goldens, recipe


def write(folder, name, meta, **arrays):
  text = np.frombuffer(json.dumps(meta).encode(), np.uint8)
  np.savez(folder / f"{name}.npz", __meta__=text, **arrays)


@pytest.fixture(autouse=True)
def _unrecorded():
  """Keeps what is compared here out of the table of measured errors."""
  before = list(goldens.MEASURED)
  yield
  goldens.MEASURED[:] = before


@pytest.fixture
def folder(tmp_path, monkeypatch):
  """A folder of goldens of its own, under names that tell nothing."""
  monkeypatch.setenv("EAGLE_GOLDENS", str(tmp_path))
  whole = {"llm": {}, "expert_configs": {}, "images": [["i", 4, 4], "zeros"], "salt": "s:"}
  keys = {"fc.weight": [[3, 4], "float32"], "rope.freqs_cos": [[2, 2], "float32"]}
  mask = np.ones((1, 2), bool)
  noise = {"logits": {"f64_max_abs": 1e-6, "f64_rel_l2": 2e-7}, "loss": {"f64_max_abs": 4e-7}}
  meta = whole | {"keys": keys, "noise": noise, "input_image_size": 4}
  logits = np.arange(1, 13, dtype=np.float32).reshape(1, 3, 4)
  write(
    tmp_path,
    "a",
    meta,
    merged_attention_mask=mask,
    logits=logits,
    **{"logits@stat": recipe.stats(logits), "loss": np.float32(4.0)},
    **{"wide@sub": logits[:, ::2], "wide@strides": np.array([1, 2, 1])},
    **{"wide@shape": np.array([1, 3, 4]), "wide@stat": recipe.stats(logits)},
  )
  write(tmp_path, "b", whole | {"keys": "as in a.npz"}, merged_attention_mask=mask)
  write(tmp_path, "c", whole, param_grad_norms=mask)
  write(tmp_path, "d", {"what": "the batch of c.npz", "salt": "s:"}, grad_norm_before_clip=mask)
  write(tmp_path, "e", {"tower": "clip", "keys": {}})
  write(tmp_path, "f", {"tower": "pix", "config": {}, "keys": {}})
  write(tmp_path, "g", {"config": {"vocab_size": 3}})
  write(tmp_path, "h", whole, generated=mask)
  write(tmp_path, "i", {"processor": {}})
  write(tmp_path, "j", {}, clip_8=mask)
  np.savez(tmp_path / "k.npz", other=mask)
  return tmp_path


@pytest.mark.parametrize(
  ("kind", "names"),
  [
    ("e2e", "ab"),
    ("grads", "c"),
    ("adamw", "d"),
    ("expert", "f"),
    ("language", "g"),
    ("generate", "h"),
    ("preprocess", "i"),
    ("preprocess_experts", "j"),
  ],
)
def test_files_are_found_by_what_they_say_of_themselves(folder, kind, names):
  assert [str(golden) for golden in goldens.discover(kind)] == list(names)


def test_full_size_experts_wait_for_their_variable(folder, monkeypatch):
  monkeypatch.setenv("EAGLE_FULL", "1")
  assert [str(golden) for golden in goldens.discover("expert")] == ["e", "f"]


def test_a_file_may_refer_to_another(folder):
  for name in "abcd":
    assert str(goldens.reference(goldens.load(name))) == "a"


def test_a_reference_to_nothing_is_an_error(folder):
  write(folder, "z", {"keys": "as in nowhere.npz"})
  with pytest.raises(FileNotFoundError, match="nowhere"):
    goldens.reference(goldens.load("z"))
  write(folder, "y", {"llm": {"width": 1}}, param_grad_norms=np.ones(1))
  with pytest.raises(FileNotFoundError, match="refers to"):
    goldens.reference(goldens.load("y"))


def test_a_folder_without_goldens_is_an_error(tmp_path, monkeypatch):
  monkeypatch.setenv("EAGLE_GOLDENS", str(tmp_path / "nowhere"))
  with pytest.raises(FileNotFoundError, match="no golden file"):
    goldens.discover("expert")


def test_weights_come_with_the_file_s_own_salt(folder):
  source = goldens.weights(goldens.load("b"))
  assert source.entries()["fc.weight"].shape == (3, 4)
  np.testing.assert_array_equal(
    source.read("fc.weight"), recipe.weight("fc.weight", (3, 4), salt="s:")
  )
  with pytest.raises(KeyError, match="derived"):
    source.read("rope.freqs_cos")


def test_pictures_come_in_order_and_zeros_are_pixels(folder):
  made = goldens.pictures(goldens.load("a"))
  assert made.shape == (2, 4, 4, 3)
  np.testing.assert_array_equal(made[0], recipe.pixels(recipe.image("i", 4, 4, "s:")))
  assert not made[1].any()


def logits():
  return np.arange(1, 13, dtype=np.float32).reshape(1, 3, 4)


@pytest.mark.parametrize("tensor", ["logits", "wide"])
def test_the_very_numbers_pass_and_are_recorded(folder, tensor):
  before = len(goldens.MEASURED)
  goldens.assert_close(goldens.load("a"), tensor, logits())
  assert [m.tensor for m in goldens.MEASURED[before:]] == [tensor, f"{tensor}@stat"]
  assert all(m.error < 1e-12 for m in goldens.MEASURED[before:])


@pytest.mark.parametrize("tensor", ["logits", "wide"])
@pytest.mark.parametrize(
  "wrong",
  [
    logits() * np.float32(1 + 4e-6),
    np.where(logits() == 1, np.float32("nan"), logits()),
    np.full_like(logits(), np.nan),
    np.where(logits() == 6, np.float32(7), logits()),
  ],
  ids=["scaled", "one nan", "all nan", "one element off the stride"],
)
def test_wrong_numbers_do_not_pass(folder, tensor, wrong):
  with pytest.raises(AssertionError, match=tensor):
    goldens.assert_close(goldens.load("a"), tensor, wrong)


def test_a_wrong_shape_does_not_pass(folder):
  with pytest.raises(AssertionError, match="shape"):
    goldens.assert_close(goldens.load("a"), "logits", logits()[:, :2])


def test_what_is_masked_is_not_compared(folder):
  wrong = logits()
  wrong[0, 1] = np.nan
  goldens.assert_close(goldens.load("a"), "logits", wrong, where=np.array([[True, False, True]]))
  with pytest.raises(AssertionError, match="logits"):
    goldens.assert_close(goldens.load("a"), "logits", wrong, where=np.ones((1, 3), bool))


def test_limits_are_ten_times_the_noise_or_those_of_the_experts(folder):
  golden = goldens.load("a")
  assert goldens.limit_of(golden, "logits") == (pytest.approx(2e-6), False)
  assert goldens.limit_of(golden, "loss") == (pytest.approx(4e-6), True)
  assert goldens.limit_of(golden, "rope_cos") == (1e-5, True)
  assert goldens.limit_of(goldens.load("e"), "tower_out") == (1e-5, False)
  assert goldens.limit_of(goldens.load("f"), "tower_out") == (1e-5, False)
  assert goldens.limit_of(goldens.load("j"), "clip_8") == (4e-6, False)
