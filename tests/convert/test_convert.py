"""Conversions that go wrong: what is refused, what is left behind, how they go on."""

import contextlib
import json
import os
import pathlib
import re
import resource
import shutil
import signal
import subprocess
import sys
import time

import ml_dtypes
import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from eagle_jax.checkpoint import manifest, stream
from eagle_jax.cli import config as cli_config
from eagle_jax.cli.main import main
from eagle_jax.convert import engine, shards
from eagle_jax.convert.source import INDEX
from eagle_jax.interchange import parts
from eagle_jax.model import eagle as eagle_lib
from tests.convert import torch_zip

ROOT = pathlib.Path(__file__).parents[2]
CLIP = ["--config=debug", "--config.model.experts=clip@demo,sam@demo", "--only=clip"]
SMOLLM2 = ["--config=debug", "--config.model.language=smollm2_135m", "--only=language"]


def shapes(arguments, scheme=0):
  """Every tensor, without values, that a file of the part would have."""
  name, *overrides = arguments
  experiment = cli_config.load(name.partition("=")[2], overrides[:-1]).experiment
  part = parts.part(eagle_lib.build(experiment.model), overrides[-1].partition("=")[2])
  chosen = part.schemes[scheme]
  return engine.outgoing(part.table(chosen), part.targets(chosen)[0])


def snapshot(path):
  """Name → contents and time of every file at or below a path."""
  files = [path] if path.is_file() else [p for p in path.rglob("*") if p.is_file()]
  return {str(file): (file.read_bytes(), file.stat().st_mtime_ns) for file in files}


STORY = ("provenance.json", "_CHECKPOINT_METADATA", "commit_success.txt")
"""Files that hold the time of day or the folder's own name."""


def digests(files):
  """Name → size and SHA-256 of the files of a manifest, the name alone of those of STORY."""
  return {name: None if name in STORY else digest for name, digest in files.items()}


def digests_of(made):
  return digests(json.loads((made / manifest.FILE).read_text())["files"])


def smollm2(path):
  """Writes 135M parameters: safetensors in bfloat16, or GGUF, a part of it in 8 bits."""
  packed = path.suffix == ".gguf"
  values = np.random.default_rng(0).normal(size=1 << 20).astype(ml_dtypes.bfloat16)
  tensors = {t.name: np.resize(values, t.entry.shape) for t in shapes(SMOLLM2, int(packed))}
  if not packed:
    save_file(tensors, path)
    return
  from tests.convert import gguf_files

  kinds = {name: gguf_files.F16 for name, array in tensors.items() if array.ndim > 1}
  eight = {name: gguf_files.Q8_0 for name in kinds if "attn" in name}
  gguf_files.save(path, tensors, kinds=kinds | eight)


def kill(arguments, partial, point):
  """Converts in a process of its own and kills it when `point` says so of the partial folder."""
  child = subprocess.Popen(
    [sys.executable, "-m", "eagle_jax", "convert", *arguments],
    cwd=ROOT,
    env={**os.environ, "JAX_PLATFORMS": "cpu"},
    stdout=subprocess.DEVNULL,
  )
  while child.poll() is None and not point(partial):
    time.sleep(0.001)
  child.kill()
  assert child.wait() == -signal.SIGKILL


def journaled(partial):
  """Name → time of writing of the files that need not be written again."""
  lines = (partial / stream.JOURNAL).read_text().splitlines()[1:]
  names = [json.loads(line)["file"] for line in lines if line.endswith("}")]
  return {name.partition("/")[2]: (partial / name).stat().st_mtime_ns for name in names}


def written(count):
  return lambda partial: len(list(partial.glob("arrays/*/[0-9]*"))) >= count


def noted(partial):
  journal = partial / stream.JOURNAL
  return journal.exists() and len(journal.read_text().splitlines()) > 1


def finishing(partial):
  return any(partial.glob("skeleton*"))


@pytest.mark.slow
@pytest.mark.parametrize(
  ("file", "points"),
  [
    ("model.safetensors", [written(1), written(60), written(200), finishing]),
    ("model.gguf", [noted]),
  ],
)
def test_a_conversion_goes_on_bitwise_after_kill_9(file, points, tmp_path):
  source = tmp_path / file
  smollm2(source)
  before = snapshot(source)
  arguments = [*SMOLLM2, f"--from={source}"]
  assert main(["convert", *arguments, f"--to={tmp_path / 'whole'}"]) == 0
  kept = {}
  for number, point in enumerate(points):
    made, partial = tmp_path / f"made{number}", tmp_path / f"made{number}.partial"
    kill([*arguments, f"--to={made}"], partial, point)
    assert not made.exists()
    kept = journaled(partial)
    assert main(["convert", *arguments, f"--to={made}"]) == 0
    assert digests_of(made) == digests_of(tmp_path / "whole")
    assert kept == {name: (made / "params" / name).stat().st_mtime_ns for name in kept}
    assert not partial.exists()
    shutil.rmtree(made)
  assert kept  # after the last point at least
  assert snapshot(source) == before


@pytest.fixture
def folder(tmp_path):
  """CLIP alone in two shards with an index."""
  rng = np.random.default_rng(0)
  tensors = [
    engine.Outgoing(t.name, t.entry, lambda t=t: rng.normal(size=t.entry.shape).astype("f4"))
    for t in shapes(CLIP)
  ]
  (tmp_path / "original").mkdir()
  total = sum(map(shards.size, tensors))
  assert len(shards.write(tmp_path / "original", tensors, max_shard=total * 2 // 3)) == 3
  return tmp_path / "original"


@contextlib.contextmanager
def files_of_at_most(size):
  """Lets the system refuse longer files to this process, as a full disk refuses any."""
  soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
  resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
  try:
    yield
  finally:
    resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_what_the_system_refuses_to_write_is_one_error(folder, tmp_path, capsys):
  made, whole, back = (tmp_path / name for name in ("made", "whole", "back"))
  arguments = ["convert", *CLIP, f"--from={folder}"]
  with files_of_at_most(20_000):
    assert main([*arguments, f"--to={made}"]) == 2
  *_, told = capsys.readouterr().err.splitlines()
  assert "bytes: File too large; what is written stays, the same command goes on with it" in told
  assert not made.exists()
  assert main([*arguments, f"--to={made}"]) == 0
  assert main([*arguments, f"--to={whole}"]) == 0
  assert digests_of(made) == digests_of(whole)

  export = ["export", f"--from={made}", "--only=clip", "--to", "hf", str(back)]
  capsys.readouterr()
  with files_of_at_most(200_000):
    assert main(export) == 2
  *_, told = capsys.readouterr().err.splitlines()
  assert told == f"eagle-jax: {back} cannot be written: File too large; nothing of it is left"
  assert {path.name for path in tmp_path.iterdir()} == {"original", "made", "whole"}
  assert main(export) == 0


@pytest.mark.slow
def test_a_full_disk_is_one_error_and_the_same_command_goes_on(folder, tmp_path):
  disk = tmp_path / "disk"
  disk.mkdir()
  alone = ["unshare", "--map-root-user", "--mount"]
  probe = [*alone, "mount", "-t", "tmpfs", "none", disk]
  if not shutil.which("unshare") or subprocess.run(probe, capture_output=True).returncode:
    pytest.skip("no small disk can be mounted here")
  arguments = [*CLIP, f"--from={folder}"]
  assert main(["convert", *arguments, f"--to={tmp_path / 'whole'}"]) == 0
  used = sum(-(-file.stat().st_size // 4096) * 4 for file in (tmp_path / "whole").rglob("*"))
  before = snapshot(folder)
  # Nothing fits; some parameters do; all do, and what describes them does not.
  sizes = f"4,{used // 3},{used + 200}"
  child = [*alone, sys.executable, "-m", "tests.convert.small_disk", disk, sizes, *arguments]
  done = subprocess.run(
    child, cwd=ROOT, env={**os.environ, "JAX_PLATFORMS": "cpu"}, capture_output=True, text=True
  )
  assert done.returncode == 0, done.stderr
  assert "Traceback" not in done.stderr
  rows = [json.loads(line) for line in done.stdout.splitlines()]
  assert len(rows) == 3
  for row in rows:
    assert (row["code"], row["again"]) == (2, 0), row["err"]
    told = [line for line in row["err"].splitlines() if "eagle-jax: " in line]
    assert len(told) == 1
    assert "the same command goes on with it" in told[0]
    assert re.search("No space left|disk is full", told[0])
    assert "Traceback" not in row["err"]
    assert row["left"] == ["made.partial"]
    assert digests(row["files"]) == digests_of(tmp_path / "whole")
  assert snapshot(folder) == before


def shard(folder, number=1):
  return folder / f"model-0000{number}-of-00002.safetensors"


def edited(change):
  """Changes the tensors of the first shard, and the index with them."""

  def damage(folder):
    tensors = load_file(shard(folder))
    change(tensors)
    save_file(tensors, shard(folder))
    index = json.loads((folder / INDEX).read_text())
    held = {n: f for n, f in index["weight_map"].items() if f != shard(folder).name}
    index["weight_map"] = held | dict.fromkeys(tensors, shard(folder).name)
    (folder / INDEX).write_text(json.dumps(index))

  return damage


NORM = "vision_model.pre_layrnorm.bias"


def misshaped(tensors):
  tensors[NORM] = tensors[NORM][:-1]


def cut_off(folder):
  shard(folder, 2).write_bytes(shard(folder, 2).read_bytes()[:-1])


def listed_elsewhere(name):
  def damage(folder):
    shutil.copy(shard(folder), folder.parent / "outside.safetensors")
    text = (folder / INDEX).read_text().replace(shard(folder).name, name)
    (folder / INDEX).write_text(text)

  return damage


def named_twice(folder):
  raw = shard(folder).read_bytes()
  length = int.from_bytes(raw[:8], "little")
  first, second = list(json.loads(raw[8 : 8 + length]))[1:3]
  assert len(first) != len(second)
  header = raw[8 : 8 + length].replace(f'"{second}"'.encode(), f'"{first}"'.encode())
  header = header.rstrip() + b" " * 64
  shard(folder).write_bytes(len(header).to_bytes(8, "little") + header + raw[8 + length :])


def indexed_twice(folder):
  text = (folder / INDEX).read_text()
  row = next(line for line in text.splitlines() if NORM in line)
  (folder / INDEX).write_text(text.replace(row, row.rstrip(",") + ",\n" + row))


def another_family(folder):
  for file in folder.iterdir():
    file.unlink()
  save_file({"h.0.attn.c_attn.weight": np.zeros((2, 6), "f4")}, folder / "model.safetensors")


def another_part(folder):
  for file in folder.iterdir():
    file.unlink()
  sam = {t.name: np.zeros(t.entry.shape, "f4") for t in shapes([*CLIP[:2], "--only=sam"])}
  save_file(sam, folder / "model.safetensors")


def pickled(folder):
  for file in folder.iterdir():
    file.unlink()
  body = b"\x80\x02cos\nsystem\n(" + torch_zip.text("touch canary") + b"tR."
  raw = torch_zip.archived(torch_zip.around(body, {"0": b"12345678"}))
  (folder / "pytorch_model.bin").write_bytes(raw)


BAD = {
  "a shard cut off": (cut_off, "its tensors end at byte"),
  "a tensor missing": (edited(lambda t: t.pop(NORM)), f"pre_norm/bias .* expects '{NORM}'"),
  "a tensor too many": (
    edited(lambda t: t.update(more=np.zeros(1, "f4"))),
    "'more' is known to no rule",
  ),
  "a tensor of another shape": (edited(misshaped), rf"'{NORM}' has shape \[63\], .* takes \[64\]"),
  "an index that leads out": (listed_elsewhere("../outside.safetensors"), "in its own folder"),
  "an index to nothing": (listed_elsewhere("gone.safetensors"), "which is not in"),
  "a name twice in a header": (named_twice, "a name is given twice"),
  "a name twice in an index": (indexed_twice, "a name is given twice"),
  "another family": (another_family, "it follows none; its 1 names begin with 'h.0.attn"),
  "another part": (another_part, "it follows none"),
  "a pickle that runs": (pickled, "the global 'os' 'system' is not allowed"),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_input_is_one_error_and_leaves_nothing_behind(
  name, folder, tmp_path, monkeypatch, capsys
):
  damage, message = BAD[name]
  damage(folder)
  monkeypatch.chdir(tmp_path)  # where a canary would be left
  before = snapshot(tmp_path)
  assert main(["convert", *CLIP, f"--from={folder}", "--to=made"]) == 2
  err = capsys.readouterr().err
  assert err.startswith("eagle-jax: ")
  assert re.search(message, err)
  assert "Traceback" not in err
  assert snapshot(tmp_path) == before


def test_a_flipped_bit_is_found_by_the_manifest_in_every_kind_of_file(folder, tmp_path, capsys):
  made = tmp_path / "made"
  assert main(["convert", *CLIP, f"--from={folder}", f"--to={made}"]) == 0
  for file in (
    made / "params" / "vision.clip.pre_norm.bias" / "0",
    made / "params" / "vision.clip.pre_norm.bias" / ".zarray",
    made / "params" / "_METADATA",
    made / "provenance.json",
  ):
    raw = bytearray(file.read_bytes())
    raw[len(raw) // 2] ^= 4
    kept = file.read_bytes()
    file.write_bytes(raw)
    assert main(["verify", str(made)]) == 2
    assert f"{file.relative_to(made)} is changed" in capsys.readouterr().err
    file.write_bytes(kept)
  assert main(["verify", str(made)]) == 0
