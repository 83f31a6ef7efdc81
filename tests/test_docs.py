"""The commands of pages in docs, run as they stand on small files with the real ones' names."""

import dataclasses
import json
import pathlib
import re
import shlex
import shutil

import numpy as np
import pytest
from PIL import Image

from eagle_jax.cli import config as cli_config
from eagle_jax.cli.main import main
from eagle_jax.convert import engine, shards
from eagle_jax.interchange import parts, upstream
from eagle_jax.language import LANGUAGE_MODELS
from eagle_jax.model import eagle as eagle_lib
from eagle_jax.train import loop
from eagle_jax.vision import EXPERTS
from tests.convert import torch_zip
from tests.datasets import record

DOCS = pathlib.Path(__file__).parents[1] / "docs"
PAGE, DATA_PAGE = ((DOCS / name).read_text() for name in ("convert.md", "data.md"))

FILES = {
  "Eagle-X5-7B/model.safetensors": ("whole", "eagle"),
  "clip-vit-large-patch14-336/pytorch_model.bin": ("clip", "eagle"),
  "convnext_xxlarge.clip_laion2b_soup_ft_in1k/model.safetensors": ("convnext", "timm"),
  "CLIP-convnext_xxlarge/open_clip_pytorch_model.bin": ("convnext", "open_clip"),
  "sam-vit-large/model.safetensors": ("sam", "hf"),
  "sam_vit_l_0b3195.pth": ("sam", "meta"),
  "eva02_L_coco_det_sys_o365.pth": ("eva02", "detection"),
  "pix2struct-large/model.safetensors": ("pix2struct", "hf"),
  "webli_en_so400m_384_58765454.npz": ("siglip", "big_vision"),
  "vicuna-7b-v1.5/model.safetensors": ("language", "hf"),
  "SmolLM2-135M-Instruct.Q4_1.gguf": ("language", "gguf"),
  "mm_projector.bin": ("projector", "eagle"),
}
"""File that the page names → the part it holds and the scheme of its names."""


def commands(page):
  """The commands of the page that are to be run, without those that leave things out."""
  text = "\n".join(re.findall(r"^```\n(.*?)^```", page, re.DOTALL | re.MULTILINE))
  lines = text.replace("\\\n", " ").splitlines()
  return [shlex.split(line) for line in lines if line.startswith("eagle-jax") and "…" not in line]


@pytest.fixture
def small(monkeypatch):
  """Makes the released sizes small, so that the recipes on the page build small models."""
  for expert in EXPERTS.values():
    monkeypatch.setitem(expert.sizes, "released", expert.sizes["demo"])
  size = dataclasses.replace(LANGUAGE_MODELS["demo"], vocab=96)
  for name in ("vicuna_7b", "smollm2_135m"):
    monkeypatch.setitem(LANGUAGE_MODELS, name, size)
  return cli_config.load("eagle_x5_vicuna_7b").experiment.model


def write(path, tensors, size):
  """Writes tensors as the suffix says; a GGUF file has the model's size too."""
  path.parent.mkdir(parents=True, exist_ok=True)
  if path.suffix == ".safetensors":
    shards.write(path.parent, tensors)
    return
  if path.suffix == ".npz":
    np.savez(path, **{tensor.name: tensor.make() for tensor in tensors})
    return
  if path.suffix == ".gguf":
    from tests.convert import gguf_files

    facts = {
      "llama.attention.head_count": size.num_heads,
      "llama.attention.head_count_kv": size.num_kv_heads,
      "llama.rope.freq_base": size.rope_theta,
      "llama.attention.layer_norm_rms_epsilon": size.norm_eps,
    }
    gguf_files.save(path, {tensor.name: tensor.make() for tensor in tensors}, facts=facts)
    return
  state = {tensor.name: torch_zip.whole(tensor.make()) for tensor in tensors}
  torch_zip.save({"model": state} if path.suffix == ".pth" else state, path)


def test_the_commands_of_the_page_run(small, vocabulary, tmp_path, monkeypatch, capsys):
  eagle = eagle_lib.build(small)
  other = eagle_lib.build(dataclasses.replace(small, experts=("siglip",)))
  rng = np.random.default_rng(0)
  for name, (what, scheme_name) in FILES.items():
    part = parts.part(other if what == "siglip" else eagle, what)
    scheme = next(s for s in part.schemes if s.name == scheme_name)
    leaves = engine.flatten(part.targets(scheme)[0])
    params = {p: rng.normal(size=leaf.shape).astype(np.float16) for p, leaf in leaves.items()}
    write(tmp_path / name, engine.outgoing(part.table(scheme), params), eagle.size.language)
  described = upstream.write(small, eagle.size, dtype="float16")
  (tmp_path / "Eagle-X5-7B" / "config.json").write_text(json.dumps(described))
  shutil.copy(vocabulary, tmp_path / "Eagle-X5-7B" / "tokenizer.model")
  (tmp_path / "images").mkdir()
  (tmp_path / "train.json").write_text(json.dumps([record("0", "0.png", "a house")]))
  Image.new("RGB", (8, 6)).save(tmp_path / "images" / "0.png")
  monkeypatch.setattr(loop, "train", lambda *given, **named: 0.0)  # all is ready, no step is done
  monkeypatch.chdir(tmp_path)
  run = commands(PAGE)
  assert {
    word.removeprefix("--from=").split("/")[0] for c in run for word in c if "--from=" in word
  } >= {name.split("/")[0] for name in FILES}
  for command in run:
    assert main(command[1:]) == 0, command
  out = capsys.readouterr().out
  assert "training draws it: vision/sam/neck_conv/kernel" in out
  assert "starts from Eagle-X5-7B: whole in the names of 'eagle'" in out


def test_the_commands_of_the_data_page_run(vocabulary, tmp_path, monkeypatch, capsys):
  parquet = pytest.importorskip("pyarrow.parquet")
  pyarrow = pytest.importorskip("pyarrow")
  (tmp_path / "images").mkdir()
  Image.new("RGB", (8, 6)).save(tmp_path / "images" / "0.png")
  (tmp_path / "train.json").write_text(json.dumps([record("0", "0.png", "a house")]))
  shutil.copy(vocabulary, tmp_path / "tokenizer.model")
  (tmp_path / "rows").mkdir()
  messages = [{"role": "user", "content": "Why?"}, {"role": "assistant", "content": "So."}]
  table = pyarrow.Table.from_pylist([{"messages": messages}])
  parquet.write_table(table, tmp_path / "rows" / "train-00000-of-00001.parquet")
  monkeypatch.chdir(tmp_path)
  for command in commands(DATA_PAGE):
    assert main(command[1:]) == 0, command
  assert (tmp_path / "tensorflow-datasets" / "eagle_records" / "1.0.0").is_dir()
  assert '"system": "Answer briefly."' in capsys.readouterr().out
  assert "picture 1: 576 positions" in (tmp_path / "preview.html").read_text()
  assert json.loads((tmp_path / "report.json").read_text())["ok"]
