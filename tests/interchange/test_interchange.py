"""Every published checkpoint's names, in and out again: not a byte changes."""

import dataclasses
import functools
import json
import math
import os

import numpy as np
import pytest

from eagle_jax import config
from eagle_jax.convert import engine, shards
from eagle_jax.convert.engine import Outgoing
from eagle_jax.convert.files import open_source
from eagle_jax.convert.source import INDEX, Entry
from eagle_jax.interchange import incoming, outgoing, parts, upstream
from eagle_jax.language import LANGUAGE_MODELS
from eagle_jax.model import eagle as eagle_lib
from eagle_jax.vision import EXPERTS
from tests.convert import keys

MIXTURES = {
  "x4": ("clip", "convnext", "eva02", "pix2struct"),
  "x5": ("clip", "convnext", "sam", "eva02", "pix2struct"),
}
NARROW = {
  "clip": {"width": 16, "num_heads": 2, "mlp_width": 24},
  "convnext": {"dims": (4, 8, 12, 16)},
  "sam": {"width": 16, "num_heads": 2, "neck_width": 4},
  "eva02": {"width": 16, "num_heads": 2},
  "pix2struct": {"width": 16, "num_heads": 2, "head_dim": 8, "mlp_width": 24, "table_length": 99},
}
"""What makes a released expert small and leaves it every tensor."""
LANGUAGES = ("vicuna_7b", "vicuna_13b", "llama3_8b", "yi_34b")
FAST = ("eagle_x4_vicuna_7b", "eagle_x5_yi_34b")
"""Both mixtures, and both kinds of attention; `make test-all` takes the others too."""
FULL = "clip_vit_large_patch14_336"


shapes_once = functools.cache(parts.abstract_params)


@pytest.fixture
def narrow(monkeypatch):
  """Makes the released sizes narrow and keeps their layers; shapes are worked out once."""
  for name, fields in NARROW.items():
    sizes = EXPERTS[name].sizes
    monkeypatch.setitem(sizes, "released", dataclasses.replace(sizes["released"], **fields))
  for name in LANGUAGES:
    size = LANGUAGE_MODELS[name]
    fields = {"vocab": 40, "width": 16, "head_dim": 4, "mlp_width": 24}
    fields |= {"num_heads": size.num_heads // size.num_kv_heads, "num_kv_heads": 1}
    monkeypatch.setitem(LANGUAGE_MODELS, name, dataclasses.replace(size, **fields))
  monkeypatch.setattr(parts, "abstract_params", shapes_once)


def experiment(mixture, language):
  model = config.Model(experts=MIXTURES[mixture], language=language)
  return config.Experiment(name="test", model=model)


def noise(name, entry):
  """A tensor of random bytes, not numbers, the same for the same name."""
  rng = np.random.default_rng(list(name.encode()))
  raw = rng.integers(0, 256, math.prod(entry.shape) * entry.dtype.itemsize, np.uint8)
  return raw.view(entry.dtype).reshape(entry.shape)


def tensors(file, part):
  """Every tensor of a key list, as large as the part takes it, and any others tiny."""
  listed = keys.load(file).tensors
  scheme = part.recognise(listed, place=file)
  leaves = part.targets(scheme)[0]
  taken = {t.name: t.entry.shape for t in engine.outgoing(part.table(scheme), leaves)}
  assert taken.keys() <= listed.keys()
  for name, (shape, dtype) in listed.items():
    small = taken.get(name, tuple(min(length, 3) for length in shape))
    assert len(small) == len(shape)
    entry = Entry(small, dtype)
    yield Outgoing(name, entry, functools.partial(noise, name, entry))


def assert_comes_back(given, folder, what, around):
  """Imports and exports what lies in a folder; returns the names that were left behind."""
  conversion = incoming.plan(str(folder / "original"), what, around)
  incoming.save(conversion, str(folder / "made"))
  described = conversion.experiment
  outgoing.export(str(folder / "made"), str(folder / "back"), what=what, experiment=described)
  back, dropped = open_source(folder / "back"), conversion.plan.dropped.keys()
  expected = {tensor.name: tensor.entry for tensor in given if tensor.name not in dropped}
  assert back.entries() == expected
  for tensor in given:
    if tensor.name in expected:
      assert back.read(tensor.name).tobytes() == tensor.make().tobytes(), tensor.name
  return set(dropped)


@pytest.mark.parametrize(
  "file", [pytest.param(n, marks=[pytest.mark.slow] * (n not in FAST)) for n in keys.MERGED]
)
def test_a_merged_checkpoint_comes_back_byte_for_byte(file, narrow, tmp_path):
  _, mixture, language = file.split("_", 2)
  model = experiment(mixture, language).model
  eagle = eagle_lib.build(model)
  given = list(tensors(file, parts.part(eagle, parts.WHOLE)))
  (tmp_path / "original").mkdir()
  total = sum(map(shards.size, given))
  names = shards.write(tmp_path / "original", given, max_shard=total // 3)
  assert INDEX in names
  described = json.dumps(upstream.write(model, eagle.size, dtype="bfloat16"))
  (tmp_path / "original" / "config.json").write_text(described)
  assert not assert_comes_back(given, tmp_path, parts.WHOLE, None)
  assert (tmp_path / "back" / "config.json").read_text() == described


@pytest.mark.parametrize("file", keys.STANDALONE)
def test_an_expert_comes_back_byte_for_byte(file, narrow, tmp_path):
  expert = file.split("_")[0]
  around = experiment("x5", "vicuna_7b")
  given = list(tensors(file, parts.part(eagle_lib.build(around.model), expert)))
  (tmp_path / "original").mkdir()
  shards.write(tmp_path / "original", given)
  # Left behind is what belongs to other networks only, such as CLIP's text encoder.
  assert assert_comes_back(given, tmp_path, expert, around) <= keys.load(file).unused


@pytest.mark.skipif(os.environ.get("EAGLE_FULL") != "1", reason="4 GB: set EAGLE_FULL=1")
def test_full_size_weights_come_back_byte_for_byte(tmp_path):
  around = experiment("x5", "vicuna_7b")
  given = list(tensors(FULL, parts.part(eagle_lib.build(around.model), "clip")))
  taken = sum(math.prod(t.entry.shape) for t in given if t.name.startswith("vision_model."))
  assert taken > 300e6
  (tmp_path / "original").mkdir()
  shards.write(tmp_path / "original", given)
  assert assert_comes_back(given, tmp_path, "clip", around) <= keys.load(FULL).unused
