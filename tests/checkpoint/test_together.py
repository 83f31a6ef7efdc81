"""Two processes and their checkpoints: what one finds, both act on."""

import json
import socket
import subprocess
import sys

WORKER = """
import json, sys
from pathlib import Path
import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import NamedSharding, PartitionSpec
from tests.checkpoint import saver

folder, port, rank = Path(sys.argv[1]), sys.argv[2], int(sys.argv[3])
jax.config.update("jax_platforms", "cpu")
jax.config.update("jax_num_cpu_devices", 2)
jax.config.update("jax_cpu_collectives_implementation", "gloo")
jax.distributed.initialize(f"localhost:{port}", 2, rank)
from eagle_jax import checkpoint
from eagle_jax.checkpoint import together

told = {"gathered": together.gather("é" * 3 * rank)}
halves = NamedSharding(jax.make_mesh((4,), ("fsdp",)), PartitionSpec("fsdp"))

def state(step):
  whole = np.arange(32, dtype=np.float32) + step  # [32]
  placed = jax.make_array_from_callback((32,), halves, lambda index: whole[index])
  return {"params": {"a/kernel": placed}, "optimizer": {"mu": placed}}

def save(step, last=False):
  data = saver.Stream(10 * step + rank)
  checkpoints.save(step, data=data, meta={}, last=last, **state(step))

checkpoints = checkpoint.Checkpoints(str(folder), keep=2)
for step in (1, 2):
  save(step, last=True)
steps = folder / "checkpoints"
if rank == 1:
  files = [path for path in (steps / "2").rglob("*") if path.is_file()]
  flipped = max(files, key=lambda path: path.stat().st_size)
  flipped.write_bytes(bytes(byte ^ 1 for byte in flipped.read_bytes()))
  (steps / "3").mkdir()
  (steps / "3" / "in the way").touch()
together.gather("")
told["good"] = checkpoint.Checkpoints(str(folder), keep=2).newest_good()
stream = saver.Stream()
abstract = jax.tree.map(
  lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=leaf.sharding), state(0)
)
params, _ = checkpoints.restore(1, data=stream, **abstract)
told["position"] = stream.position
same = jax.tree.map(
  lambda a, b: all(np.array_equal(x.data, y.data) for x, y in
                   zip(a.addressable_shards, b.addressable_shards, strict=True)),
  params, state(1)["params"],
)
told["same"] = same
(steps / "4").mkdir(exist_ok=True)
(steps / "4" / "in the way").touch()
save(4)
told["failed"] = checkpoints.wait()
save(5, last=True)
told["names"] = sorted(path.name for path in steps.iterdir())
print("told", json.dumps(told))
"""


def test_what_one_process_finds_both_act_on(tmp_path):
  with socket.socket() as free:
    free.bind(("localhost", 0))
    port = str(free.getsockname()[1])
  command = [sys.executable, "-c", WORKER, str(tmp_path), port]
  workers = [
    subprocess.Popen([*command, str(rank)], stdout=subprocess.PIPE, text=True) for rank in (0, 1)
  ]
  said = [worker.communicate(timeout=120)[0] for worker in workers]
  assert [worker.returncode for worker in workers] == [0, 0]
  told = [json.loads(out.split("told", 1)[1].splitlines()[0]) for out in said]
  assert [one["gathered"] for one in told] == [["", "ééé"]] * 2
  assert [one["good"] for one in told] == [1, 1]
  assert [one["position"] for one in told] == [10, 11]
  assert all(one["same"]["a/kernel"] for one in told)
  assert all("checkpoint 4 is not saved: OSError" in one["failed"] for one in told)
  assert told[0]["names"] == ["2.bad", "3.bad", "4", "5"]
  assert "checkpoint 2 is set aside as 2.bad" in said[0]
