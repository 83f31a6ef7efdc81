"""Converts onto disks that are too small, then onto the same ones made larger.

    unshare -rm python -m tests.convert.small_disk FOLDER KIB,KIB FLAG…

Mounts a file system in memory on FOLDER, in a name space of its own, for each size in KiB.
The flags are those of `eagle-jax convert` without its target. Prints one JSON line for each
size: exit codes, message, what lay there in between, and the digest of every file at the end.
"""

import contextlib
import io
import json
import os
import subprocess
import sys

from eagle_jax.checkpoint import manifest
from eagle_jax.cli.main import main


def mount(folder, *options):
  """Mounts memory on a folder, or changes what is mounted there."""
  subprocess.run(["mount", "-t", "tmpfs", "-o", ",".join(options), "none", folder], check=True)


def convert(target, arguments):
  """Returns the exit code and what went to the error stream."""
  err = io.StringIO()
  with contextlib.redirect_stderr(err), contextlib.redirect_stdout(io.StringIO()):
    code = main(["convert", *arguments, f"--to={target}"])
  return code, err.getvalue()


def run(folder, sizes, *arguments):
  target = os.path.join(folder, "made")
  for size in sizes.split(","):
    mount(folder, f"size={size}k")
    code, err = convert(target, arguments)
    left = os.listdir(folder)
    mount(folder, "remount", "size=256m")
    again, _ = convert(target, arguments)
    with open(os.path.join(target, manifest.FILE)) as file:
      files = json.load(file)["files"]
    told = {"code": code, "err": err, "left": left, "again": again, "files": files}
    print(json.dumps(told), flush=True)
    subprocess.run(["umount", folder], check=True)


if __name__ == "__main__":
  run(*sys.argv[1:])
