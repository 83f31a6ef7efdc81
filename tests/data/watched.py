"""Surveys records in a process of its own, and says which files it opened besides them.

python -m tests.data.watched RECORDS IMAGES TOKENIZER SECONDS
"""

import faulthandler
import json
import os
import pathlib
import re
import sys

from PIL import Image

from eagle_jax import config
from eagle_jax.data import records, survey

ACTS = ("socket.", "subprocess.", "os.system", "os.exec", "os.fork", "os.posix_spawn", "os.spawn")
"""What reading data never does."""


def memory():
  """Bytes of memory in use, and the most that ever were."""
  # Not ru_maxrss: that begins with what the parent process had.
  told = dict(
    re.findall(r"(VmRSS|VmHWM):\s+(\d+) kB", pathlib.Path("/proc/self/status").read_text())
  )
  return int(told["VmRSS"]) * 1024, int(told["VmHWM"]) * 1024


def watch(allowed):
  """Returns a list that goes on to gather what is opened or done besides what is allowed."""
  met = []

  def hook(event, given):
    if event.startswith(ACTS):
      met.append(event)
    elif event == "open" and isinstance(given[0], (str, bytes)):
      path = os.path.realpath(os.fsdecode(given[0]))
      if not path.startswith(allowed):
        met.append(path)

  sys.addaudithook(hook)
  return met


def remember():
  """Returns a table that goes on to hold the place of every bad record and its reason."""
  met, add = {}, records.Tally.add

  def remembering(self, fault):
    met[fault.place] = fault.reason
    add(self, fault)

  records.Tally.add = remembering
  return met


def main(path, images, tokenizer, seconds):
  """Prints what became of the records, what was opened, and how memory grew."""
  faulthandler.dump_traceback_later(float(seconds), exit=True)
  data = config.Data(records=path, images=images, tokenizer=tokenizer, max_images=4, max_length=256)
  reader = survey.Reader(data, image_size=32, tokens_per_image=4)
  Image.init()
  code = (sys.prefix, sys.base_prefix, str(pathlib.Path(__file__).parents[2]), "/proc/")
  met = watch((*code, os.path.realpath(images) + "/", os.path.realpath(path)))
  reasons = remember()
  before, _ = memory()
  (summary,) = survey.survey(data, reader)
  after, peak = memory()
  told = {
    "good": summary.good,
    "bad": dict(summary.tally.counts),
    "outside": sorted(set(met)),
    "kept_mb": (after - before) / 1e6,
    "peak_mb": (peak - before) / 1e6,
    "reasons": reasons,
  }
  print(json.dumps(told))


if __name__ == "__main__":
  main(*sys.argv[1:])
