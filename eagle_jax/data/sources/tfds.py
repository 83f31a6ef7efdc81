"""TFDS data sets written as ArrayRecord, read by number and without TensorFlow.

A place is the folder of one version, with `#SPLIT` behind it where that is not `train`.
The features are those of `eagle_jax.data.tfds_builder`: `id`, `conversations` with `from`
and `value`, and `images`, which stay encoded.
"""

from __future__ import annotations

import os
from typing import Any

import tensorflow_datasets as tfds

from eagle_jax.data import records
from eagle_jax.data.records import BadRecordError, Limits, Record, Tally
from eagle_jax.data.sources import demand_there
from eagle_jax.errors import EagleError
from eagle_jax.registry import lookup

FEATURES = ("id", "conversations", "images")


class _Encoded(tfds.decode.SkipDecoding):
  """Leaves pictures encoded in sequences, too, where TFDS's own class does not."""

  def decode_batch_example_np(self, encoded: Any) -> Any:
    """Returns what it is given."""
    return encoded


class Tfds:
  """The examples of one split."""

  def __init__(self, path: str, split: str, limits: Limits):
    """Opens the split; no example is read.

    Raises:
      EagleError: if there is no such data set or split, or its features are others.
    """
    self._path, self._limits = path, limits
    self.tally, self.licence = Tally(), ""
    if not os.path.isfile(os.path.join(path, "dataset_info.json")):
      raise EagleError(f"data.records {path!r} is no TFDS data set: it has no dataset_info.json")
    try:
      builder = tfds.builder_from_directory(path)
    except OSError:
      raise
    except Exception as error:  # protobuf's errors share no base with others
      raise EagleError(f"data.records {path!r} is no TFDS data set: {error}") from None
    lookup({name: name for name in builder.info.splits}, split, what="split of the data set")
    self.licence = str((builder.info.metadata or {}).get("licence", ""))
    missing = [name for name in FEATURES if name not in builder.info.features]
    if missing:
      raise EagleError(
        f"data.records {path!r} has no feature {', '.join(missing)}; those of records are "
        f"{', '.join(FEATURES)}"
      )
    self._files = [os.fspath(file) for file in builder.info.splits[split].filepaths]
    self._data: Any = builder.as_data_source(split, decoders={"images": _Encoded()})

  def __len__(self) -> int:
    return len(self._data)

  def __getitem__(self, number: int) -> Record:
    try:
      found = self._data[number]
    except (RuntimeError, ValueError) as error:
      demand_there(self._files)
      raise BadRecordError("unreadable record", str(error)) from None
    images = tuple(bytes(each) for each in found["images"])
    told = found["conversations"]
    turns = [
      {"from": role.decode(), "value": text.decode()}
      for role, text in zip(told["from"], told["value"], strict=True)
    ]
    plain = {"id": found["id"].decode(), "image": [""] * len(images), "conversations": turns}
    record = records.parse(plain, self._path, number + 1)._replace(images=images)
    records.demand(record, self._limits)
    return record

  def place(self, number: int) -> str:
    """Returns the folder and the example's number, from 1."""
    return f"{self._path}:{number + 1}"


def open_source(path: str, folder: str, limits: Limits) -> Tfds:
  """Opens the split that stands behind `#`; `folder` is not needed."""
  del folder
  path, _, split = path.partition("#")
  return Tfds(path, split or "train", limits)
