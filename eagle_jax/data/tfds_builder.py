"""Any source as a TFDS data set, written and read without TensorFlow."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from typing import Any

import tensorflow_datasets as tfds

from eagle_jax import config
from eagle_jax.data import build, records, sources
from eagle_jax.data.records import BadRecordError, BadRecords, Fault
from eagle_jax.errors import EagleError

VERSION = "1.0.0"


class EagleRecords(tfds.core.GeneratorBasedBuilder):
  """Conversations about pictures; the pictures' files are kept as they are."""

  VERSION = tfds.core.Version(VERSION)
  name = "eagle_records"
  # TFDS would look beside the code for checksums of downloads, and there are none.
  code_path = None

  def __init__(self, wanted: build.Wanted, **kwargs: Any):
    """Takes what is to be built; the rest is TFDS's own, such as `data_dir`."""
    self._wanted = wanted
    super().__init__(file_format="array_record", **kwargs)

  def _info(self) -> tfds.core.DatasetInfo:
    """Returns the features; bytes given for an image are kept as they are."""
    source: config.Source = self._wanted.source
    return tfds.core.DatasetInfo(
      builder=self,
      description=self.__doc__,
      features=tfds.features.FeaturesDict(
        {
          "id": tfds.features.Text(),
          "conversations": tfds.features.Sequence(
            {"from": tfds.features.Text(), "value": tfds.features.Text()}
          ),
          "images": tfds.features.Sequence(tfds.features.Image()),
        }
      ),
      metadata=tfds.core.MetadataDict(licence=source.licence),
      disable_shuffling=True,
    )

  def _split_generators(self, dl_manager: Any) -> dict[str, Any]:
    """Returns the only split; nothing is downloaded."""
    del dl_manager
    return {"train": self._generate_examples()}

  def _generate_examples(self) -> Iterator[tuple[int, dict[str, Any]]]:
    """Yields number and example, the bad ones left out under the budget."""
    wanted = self._wanted
    opened = sources.open_source(wanted.source.records, wanted.source.images, wanted.limits)
    total = len(opened) + len(opened.tally)
    bad = BadRecords(budget=wanted.budget, total=total, known=[opened.tally])
    bad.check()
    for number in range(len(opened)):
      try:
        record = opened[number]
        images = build.encoded_images(record)
      except BadRecordError as error:
        bad.note(Fault(opened.place(number), error.reason, error.detail))
        bad.check()
        continue
      turns = records.conversations(record)
      yield number, {"id": record.id, "conversations": turns, "images": images}


def write(wanted: build.Wanted, folder: str) -> str:
  """Writes a data set and returns the folder of its version, a source to train on.

  Args:
    wanted: what; TFDS decides how many shards there are.
    folder: must not exist yet.

  Raises:
    EagleError: if the folder exists, or too many records are bad.
  """
  if os.path.exists(folder):
    raise EagleError(f"{folder} exists already; nothing is overwritten, name a new folder")
  builder = EagleRecords(wanted, data_dir=folder)
  try:
    builder.download_and_prepare()
  except EagleError:
    shutil.rmtree(folder, ignore_errors=True)
    raise
  return str(builder.data_dir)
