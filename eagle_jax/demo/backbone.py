"""The vision backbone inside an ONNX file, under the names it had before it was exported.

An exporter keeps the names of convolutions, norms and biases. Kernels of dense layers
become anonymous operands of MatMul nodes, and a position table that is a constant falls
apart into the class token's row and the patches'; the nodes' own names tell whose they are.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from eagle_jax.demo import extras
from eagle_jax.errors import EagleError

PREFIX = "backbone."
"""What the names of the backbone's tensors begin with; the rest of the network is left."""

POSITIONS = "embeddings.position_embeddings"
_POSITION_NODES = ("Concat", "Reshape")
"""Operations that take the class token's row [1, 1, C] and the patches' rows [1, N, C]."""


def read(path: Path) -> dict[str, np.ndarray]:
  """Returns transformers' name → tensor of a DINOv2 backbone, dense kernels as [out, in].

  Raises:
    EagleError: if the file is no ONNX model, keeps tensors elsewhere, or has no backbone.
  """
  onnx = extras.require("onnx", extra="pretrained")
  try:
    graph = onnx.load(str(path), load_external_data=False).graph
  except Exception as error:  # protobuf's decoding error has no public base
    raise EagleError(f"{path} is no ONNX model: {error}") from None
  outside = [t.name for t in graph.initializer if t.data_location == onnx.TensorProto.EXTERNAL]
  if outside:
    raise EagleError(f"{path} must hold its tensors itself, {outside[0]!r} lies in another file")
  held = {t.name: onnx.numpy_helper.to_array(t) for t in graph.initializer}
  found = {name: array for name, array in held.items() if name.startswith(PREFIX)}
  found |= dict(_dense(graph.node, held))
  rows = [_position(graph.node, held, operation, path=path) for operation in _POSITION_NODES]
  found[PREFIX + POSITIONS] = np.concatenate(rows, axis=1)
  return {name.removeprefix(PREFIX): np.ascontiguousarray(array) for name, array in found.items()}


def _dense(nodes: Any, held: Mapping[str, np.ndarray]) -> Iterator[tuple[str, np.ndarray]]:
  """Yields name and kernel [out, in] of every dense layer whose kernel became anonymous."""
  for node in nodes:
    of_backbone = node.name.startswith(f"/{PREFIX.rstrip('.')}/")
    if of_backbone and node.op_type == "MatMul" and node.input[1] in held:
      yield f"{_module(node.name)}.weight", held[node.input[1]].T


def _position(
  nodes: Any, held: Mapping[str, np.ndarray], operation: str, *, path: Path
) -> np.ndarray:
  """Returns the rows [1, n, C] of the position table that one kind of operation takes."""
  rows = [
    held[name]
    for node in nodes
    if node.op_type == operation and _module(node.name) == f"{PREFIX}embeddings"
    for name in node.input
    if name in held and not name.startswith(PREFIX) and held[name].ndim == 3
  ]
  if len(rows) != 1:
    raise EagleError(
      f"{path} must have one table of positions that a {operation} of '{PREFIX}embeddings' "
      f"takes, it has {len(rows)}"
    )
  return rows[0]


def _module(node: str) -> str:
  """Returns 'a.b' of a node named '/a/b/MatMul'."""
  return node.strip("/").rpartition("/")[0].replace("/", ".")
