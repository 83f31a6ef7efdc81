import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from eagle_jax.cli import config as cli_config
from eagle_jax.cli.main import main
from eagle_jax.convert import engine
from eagle_jax.interchange import incoming, parts
from eagle_jax.model import eagle as eagle_lib
from tests.vision.weights import test_siglip as siglip

CONFIG = "--config=debug"
EXPERTS = "--config.model.experts=clip@demo,sam@demo"


@pytest.fixture(scope="module")
def eagle():
  return eagle_lib.build(cli_config.load("debug", [EXPERTS]).experiment.model)


def foreign(eagle, what, path):
  """Writes a file as the original would have saved it; returns the parameters it stands for."""
  part = parts.part(eagle, what)
  table, (abstract, _) = part.table(part.schemes[0]), part.targets(part.schemes[0])
  rng = np.random.default_rng(0)
  leaves = {
    name: rng.standard_normal(leaf.shape).astype(np.float32)
    for name, leaf in engine.flatten(abstract).items()
  }
  tensors = dict(engine.export(table, engine.unflatten(leaves)))
  if what in ("whole", "clip"):
    prefix = "model.vision_tower.vision_towers.0.vision_tower." if what == "whole" else ""
    tensors[f"{prefix}vision_model.post_layernorm.weight"] = np.ones(64, np.float32)
  save_file({name: np.ascontiguousarray(array) for name, array in tensors.items()}, path)
  return leaves


@pytest.mark.parametrize("what", ["whole", "language", "sam", "clip"])
def test_a_part_arrives_whole_and_unchanged(eagle, what, tmp_path, capsys):
  import jax

  from eagle_jax import checkpoint

  source, target = tmp_path / "model.safetensors", tmp_path / "made"
  leaves = foreign(eagle, what, source)
  arguments = [CONFIG, EXPERTS, f"--only={what}", "--dtype=fp32"]
  assert main(["convert", *arguments, f"--from={source}", f"--to={target}"]) == 0
  assert f"to {len(leaves)} parameters" in capsys.readouterr().out

  assert checkpoint.stored(str(target)) == {name: a.shape for name, a in leaves.items()}
  one = jax.sharding.SingleDeviceSharding(jax.devices()[0])
  wanted = {n: jax.ShapeDtypeStruct(a.shape, a.dtype, sharding=one) for n, a in leaves.items()}
  loaded = checkpoint.load_params(str(target), wanted)
  for name, array in leaves.items():
    np.testing.assert_array_equal(loaded[name], array, err_msg=name)
  assert checkpoint.read_meta(str(target))["what"] == what
  carried = target / incoming.CARRIED_FILE
  assert carried.exists() == (what in ("whole", "clip"))
  if carried.exists():
    [(name, array)] = load_file(carried).items()
    assert name.endswith("vision_model.post_layernorm.weight")
    assert array.sum() == 64


def test_parameters_are_stored_in_the_dtype_asked_for(eagle, tmp_path):
  import jax.numpy as jnp
  from flax import traverse_util
  from orbax.checkpoint import v1 as ocp

  source, target = tmp_path / "model.safetensors", tmp_path / "made"
  foreign(eagle, "language", source)
  arguments = [CONFIG, EXPERTS, "--only=language", f"--from={source}", f"--to={target}"]
  assert main(["convert", *arguments, "--dtype=bf16"]) == 0
  metadata = ocp.checkpointables_metadata(target).metadata["params"]
  leaves = traverse_util.flatten_dict(dict(metadata), sep="/").values()
  assert {jnp.dtype(leaf.dtype) for leaf in leaves} == {jnp.dtype(jnp.bfloat16)}


def test_a_checkpoint_that_does_not_fit_is_refused_whole(eagle, tmp_path, capsys):
  source, target = tmp_path / "model.safetensors", tmp_path / "made"
  foreign(eagle, "sam", source)
  tensors = load_file(source)
  tensors["pos_embedd"] = tensors.pop("pos_embed")
  save_file(tensors, source)
  arguments = [CONFIG, EXPERTS, "--only=sam", f"--from={source}", f"--to={target}"]
  assert main(["convert", *arguments]) == 2
  err = capsys.readouterr().err
  assert "'pos_embedd' is known to no rule, did you mean 'pos_embed'?" in err
  assert "Traceback" not in err
  assert not target.exists()


@pytest.mark.parametrize(
  ("arguments", "told"),
  [
    (["--to=x"], "required: --from"),
    (["--form=x", "--to=y"], "did you mean '--from'"),
    (["--from=nowhere", "--to=y"], "checkpoint 'nowhere' is not there"),
    (["--from=.", "--to=."], "exists already"),
  ],
)
def test_mistakes_are_one_line(arguments, told, capsys, tmp_path, monkeypatch):
  monkeypatch.chdir(tmp_path)
  assert main(["convert", CONFIG, *arguments]) == 2
  err = capsys.readouterr().err
  assert told in err
  assert err.count("\n") == 1


def test_an_archive_of_big_vision_leaves_in_the_names_of_transformers(tmp_path, capsys):
  tensors = siglip.published(siglip.TINY)
  arrays = siglip.below("img/", siglip.as_big_vision(tensors, siglip.TINY) | siglip.POOL)
  np.savez(tmp_path / "x.npz", **siglip.below("params/", arrays | siglip.BESIDE))
  arguments = [CONFIG, "--config.model.experts=siglip@tiny", "--only=siglip"]
  made, out = str(tmp_path / "made"), tmp_path / "out"
  assert main(["convert", *arguments, f"--from={tmp_path / 'x.npz'}", f"--to={made}"]) == 0
  assert "37 tensors in the names of 'big_vision' to 21 parameters" in capsys.readouterr().out
  assert set(load_file(tmp_path / "made" / incoming.CARRIED_FILE)) == {
    f"params/img/{name}" for name in siglip.POOL
  }
  assert main(["export", f"--from={made}", "--only=siglip", "--to", "hf", str(out)]) == 0
  found = load_file(out / "model.safetensors")
  assert found.keys() == tensors.keys()
  for name, array in tensors.items():
    np.testing.assert_array_equal(found[name], array)
