"""Foreign tensors straight into shardings: the same values, and no process reads it all."""

import json
import socket
import subprocess
import sys

import jax
import ml_dtypes
import numpy as np
import pytest
from jax.sharding import NamedSharding, PartitionSpec
from safetensors.numpy import save_file

from eagle_jax import config
from eagle_jax.convert import engine, placed
from eagle_jax.convert.files import open_source
from eagle_jax.convert.rules import Rule, Table, conv, linear, same
from eagle_jax.sharding.mesh import make_mesh

TABLE = Table(
  (
    Rule("layers.{n}.weight", "layers[{n}]/kernel", linear),
    Rule("layers.{n}.bias", "layers[{n}]/bias", same),
    Rule("patch.weight", "patch/kernel", conv),
  )
)
SHAPES = {"layers/kernel": (3, 8, 4), "layers/bias": (3, 4), "patch/kernel": (2, 2, 4, 8)}
AXES = {
  "layers/kernel": PartitionSpec(None, "fsdp", "tensor"),
  "layers/bias": PartitionSpec(),
  "patch/kernel": PartitionSpec(None, None, "fsdp", "data"),
}


@pytest.fixture
def file(tmp_path):
  rng = np.random.default_rng(0)
  shapes = {f"layers.{n}.weight": (4, 8) for n in range(3)}
  shapes |= {f"layers.{n}.bias": (4,) for n in range(3)} | {"patch.weight": (8, 4, 2, 2)}
  tensors = {n: rng.normal(size=s).astype(ml_dtypes.bfloat16) for n, s in shapes.items()}
  save_file(tensors, tmp_path / "model.safetensors")
  return tmp_path / "model.safetensors"


def planned(file):
  abstract = {path: jax.ShapeDtypeStruct(shape, np.float32) for path, shape in SHAPES.items()}
  source = open_source(file)
  return engine.plan(source, TABLE, engine.unflatten(abstract)), source


def wanted(mesh):
  return {
    path: jax.ShapeDtypeStruct(shape, np.float32, sharding=NamedSharding(mesh, AXES[path]))
    for path, shape in SHAPES.items()
  }


@pytest.mark.parametrize("axes", [(1, 1, 1), (2, 2, 2), (1, 4, 2), (8, 1, 1)])
def test_any_mesh_gets_what_fill_would_give(file, axes):
  plan, source = planned(file)
  data, fsdp, tensor = axes
  devices = jax.devices()[: data * fsdp * tensor]
  mesh = make_mesh(config.Mesh(data=data, fsdp=fsdp, tensor=tensor), devices)
  got, taken = placed.place(plan, source, wanted(mesh))
  filled = engine.flatten(engine.fill(plan, source)[0])
  for path, array in filled.items():
    assert got[path].sharding == wanted(mesh)[path].sharding
    np.testing.assert_array_equal(np.asarray(got[path]), array)
  size = sum(array.size * 2 for array in filled.values())
  assert taken == size  # each byte once, however many devices hold it


def test_a_part_of_the_plan_reads_only_its_own(file):
  plan, source = planned(file)
  mesh = make_mesh(config.Mesh(data=2, fsdp=2, tensor=2))
  got, taken = placed.place(plan, source, {"layers/bias": wanted(mesh)["layers/bias"]})
  assert list(got) == ["layers/bias"]
  assert taken == 3 * 4 * 2


WORKER = """
import json, sys
import jax
from tests.convert import test_placed
from eagle_jax import config
from eagle_jax.convert import placed
from eagle_jax.sharding.mesh import make_mesh

file, port, rank = sys.argv[1], sys.argv[2], int(sys.argv[3])
jax.config.update("jax_platforms", "cpu")
jax.config.update("jax_num_cpu_devices", 4)
jax.config.update("jax_cpu_collectives_implementation", "gloo")
jax.distributed.initialize(f"localhost:{port}", 2, rank)
plan, source = test_placed.planned(file)
mesh = make_mesh(config.Mesh(data=1, fsdp=4, tensor=2))
got, taken = placed.place(plan, source, test_placed.wanted(mesh))
own = {p: sum(float(s.data.sum()) for s in a.addressable_shards) for p, a in got.items()}
print("told", json.dumps({"taken": taken, "own": own}))
"""


def test_two_processes_read_half_each(file):
  with socket.socket() as free:
    free.bind(("localhost", 0))
    port = str(free.getsockname()[1])
  command = [sys.executable, "-c", WORKER, str(file), port]
  workers = [
    subprocess.Popen([*command, str(rank)], stdout=subprocess.PIPE, text=True) for rank in (0, 1)
  ]
  said = [worker.communicate(timeout=120)[0] for worker in workers]
  assert [worker.returncode for worker in workers] == [0, 0]
  told = [json.loads(out.split("told", 1)[1].splitlines()[0]) for out in said]
  plan, source = planned(file)
  filled = engine.flatten(engine.fill(plan, source)[0])
  sharded = sum(array.size * 2 for path, array in filled.items() if path != "layers/bias")
  bias = filled["layers/bias"].size * 2
  assert [one["taken"] for one in told] == [sharded // 2 + bias] * 2
  assert all(one["taken"] <= 0.55 * (sharded + bias) for one in told)
  kernel = sum(one["own"]["layers/kernel"] for one in told)
  assert kernel == pytest.approx(float(filled["layers/kernel"].sum()), abs=1e-4)
