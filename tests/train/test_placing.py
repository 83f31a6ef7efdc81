"""Pictures made square on the devices: the same batches, and the same training."""

import dataclasses
import itertools
import json
import pathlib
import socket
import subprocess
import sys

import jax
import numpy as np
import pytest
from PIL import Image

from eagle_jax import config
from eagle_jax.data import ahead, batch, canvas, image, pipeline, planned
from eagle_jax.errors import EagleError
from eagle_jax.sharding.mesh import make_mesh
from eagle_jax.train import loop, metrics, placing, prepared
from eagle_jax.types import PLACEHOLDER
from tests.datasets import record

SIDE = 16
MODES = ("RGB", "RGBA", "L", "P", "LA", "CMYK")
SIZES = ((40, 60), (33, 7), (16, 16), (1, 5), (520, 90), (2049, 3))  # the last fits no canvas


@pytest.fixture
def pictured(dataset, monkeypatch):
  """Returns a function: six pictures of all kinds, one record with two, four without any."""
  monkeypatch.setattr(canvas, "SIDES", (64, 128, 640, canvas.SIDES[-1]))  # small, to be quick
  monkeypatch.setattr(planned, "PACKED_SAMPLES", 8)
  monkeypatch.setattr(planned, "BUCKETED_BATCHES", 3)
  two = record("two", ["0.png", "4.png"], "both", "<image>\n<image>\nWhich?")
  words = [{**record(f"w{n}", "", "It is 7. " * (n + 1), "Hi"), "image": None} for n in range(4)]

  def write(**fields):
    known = {"max_length": 96, "max_images": 2, "bad_budget": 0.2}
    data = dataset(6, entries=[two, *words], **{**known, **fields})
    draw = np.random.default_rng(0)
    for number, (mode, size) in enumerate(zip(MODES, SIZES, strict=True)):
      count = size[0] * size[1] * len(Image.new(mode, size).getbands())
      made = Image.frombytes(mode, size, draw.bytes(count))
      name = pathlib.Path(data.images) / f"{number}.png"
      made.save(name, format="TIFF" if mode == "CMYK" else "PNG")
    return data

  return write


def stream(data, *, batch_size=4):
  return pipeline.make_iterator(
    data, batch_size=batch_size, seed=0, image_size=SIDE, tokens_per_image=4
  )


def equal(a, b):
  for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True):
    assert x.sharding == y.sharding
    np.testing.assert_array_equal(x, y)


def rows_of(*counts, load, size=(60, 40)):
  """Rows with so many pictures each, all different."""
  draw = np.random.default_rng(0)
  made = []
  for count in counts:
    pictures = [
      Image.frombytes("RGB", size, draw.bytes(size[0] * size[1] * 3)) for _ in range(count)
    ]
    tokens = np.array([1] + [PLACEHOLDER] * count, np.int32)
    made.append(batch.Row(tuple(load(p, SIDE, "pad") for p in pictures), tokens, tokens == 1))
  return made


def both(*counts, size=(60, 40), **options):
  """A batch of squares, and the same on canvases."""
  known = {"lengths": (4,), "max_images": 2, "image_size": SIDE, "pad_id": 0, **options}
  squares = batch.collate(rows_of(*counts, load=image.preprocess, size=size), **known)
  return squares, batch.on_canvas(rows_of(*counts, load=canvas.draw, size=size), **known)


@pytest.mark.parametrize(
  "fields",
  [
    {},
    {"aspect": "square"},
    {"pack": True, "share": 2, "max_images": 3, "workers": 2},
    {"lengths": (48, 96), "workers": 2},
    {"blank_images": True},
  ],
)
def test_batches_are_those_of_the_host_and_go_on_where_it_stood(pictured, fields):
  data = pictured(**fields)
  put = placing.Placer(make_mesh(config.Mesh(fsdp=2, tensor=2), jax.devices()[:4]))
  host = stream(dataclasses.replace(data, workers=0))
  made = ahead.Ahead(stream(dataclasses.replace(data, device_resize=True)), put, depth=1)
  want, states = [], []
  for squares in itertools.islice(host, 4):
    want.append(put(squares))
    states.append(json.loads(json.dumps(host.get_state())))
    equal(next(made), want[-1])
    assert made.get_state() == states[-1]
  made.set_state(states[1])
  equal(next(made), want[2])
  made.close()
  slots = {squares.images.shape[1] for squares in want}
  assert slots == ({0, 2} if "lengths" in fields else {data.max_images})


@pytest.mark.parametrize("axes", [(8, 1), (2, 4)])
def test_every_device_makes_the_pictures_of_its_rows(axes):
  mesh = make_mesh(config.Mesh(data=1, fsdp=axes[0], tensor=axes[1]))
  put = placing.Placer(mesh)
  squares, drawn = both(*[0, 1, 2, 1] * 4, share=2, max_images=3)
  equal(put(drawn), put(squares))


def test_groups_that_cannot_be_dealt_out_are_refused():
  put = placing.Placer(make_mesh(config.Mesh(fsdp=4), jax.devices()[:4]))
  with pytest.raises(EagleError, match="2 groups, 4 shards"):
    put(both(1, 0, 1, 0, share=2)[1])


WORKER = """
import sys
import jax
port, rank = sys.argv[1], int(sys.argv[2])
jax.config.update("jax_platforms", "cpu")
jax.config.update("jax_num_cpu_devices", 2)
jax.config.update("jax_cpu_collectives_implementation", "gloo")
jax.distributed.initialize(f"localhost:{port}", 2, rank)
import numpy as np
from eagle_jax import config
from eagle_jax.sharding.mesh import make_mesh
from eagle_jax.train import placing
from tests.train import test_placing

# The processes' pictures fit different canvases.
squares, drawn = test_placing.both(1, 2, size=((60, 40), (30, 600))[rank])
put = placing.Placer(make_mesh(config.Mesh(data=2, fsdp=2)))
got, want = put(drawn).images, put(squares).images
assert got.shape == want.shape == (4, 2, 16, 16, 3)
assert got.sharding == want.sharding
for a, b in zip(got.addressable_shards, want.addressable_shards, strict=True):
  assert (a.device, a.index) == (b.device, b.index)
  np.testing.assert_array_equal(a.data, b.data)
print("told", drawn.canvas.pixels.shape[1])
"""


def test_processes_need_not_agree_on_a_canvas():
  with socket.socket() as free:
    free.bind(("localhost", 0))
    port = str(free.getsockname()[1])
  workers = [
    subprocess.Popen(
      [sys.executable, "-c", WORKER, port, str(rank)],
      cwd=pathlib.Path(__file__).parents[2],
      stdout=subprocess.PIPE,
      text=True,
    )
    for rank in (0, 1)
  ]
  said = [worker.communicate(timeout=300)[0] for worker in workers]
  assert [worker.returncode for worker in workers] == [0, 0]
  assert [out.split("told ")[1].strip() for out in said] == ["512", "640"]


@pytest.mark.slow
def test_training_is_the_same_bit_by_bit_and_a_run_may_change_over(tmp_path, pictured):
  chosen = config.Experiment(
    name="small",
    stage="pretrain",
    init_missing=True,
    batch_size=4,
    steps=3,
    log_every=1,
    model=config.Model(
      experts=("clip@demo",),
      language="demo",
      image_size=64,
      grid_side=2,
      dtype="float32",
      frozen_dtype="float32",
      remat="none",
    ),
    data=pictured(),
    mesh=config.Mesh(data=1, fsdp=4, tensor=2),
  )
  drawn = dataclasses.replace(chosen, data=dataclasses.replace(chosen.data, device_resize=True))
  for each, name in ((chosen, "host"), (drawn, "device")):
    loop.run(each, str(tmp_path / name))
  rows = metrics.read(str(tmp_path / "device"))
  assert rows == metrics.read(str(tmp_path / "host"))
  assert [row["step"] for row in rows] == [1, 2, 3]
  prepared.prepare(chosen, str(tmp_path / "device"), num_records=11)  # is not refused
