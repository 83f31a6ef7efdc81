"""What a device can do at best, and what it has used."""

from __future__ import annotations

import pathlib
import resource
import sys

import jax

PEAKS: tuple[tuple[str, float], ...] = (
  # Source: Google Cloud's pages of each TPU generation; NVIDIA's data sheets, dense, SXM.
  ("TPU v2", 22.5e12),  # a device is one of two cores
  ("TPU v3", 61.5e12),
  ("TPU v4 lite", 138e12),
  ("TPU v4", 275e12),
  ("TPU v5 lite", 197e12),
  ("TPU v5e", 197e12),
  ("TPU v5", 459e12),
  ("TPU v6", 918e12),
  ("NVIDIA A100", 312e12),
  ("NVIDIA H100", 989e12),
  ("NVIDIA H200", 989e12),
)
"""How the name of a kind of device begins → its bfloat16 products per second, first match."""


def peak(kind: str) -> float | None:
  """Returns the peak operations per second of a device in bfloat16, None where it is unknown.

  Args:
    kind: `device_kind` of a device.
  """
  return next((flops for start, flops in PEAKS if kind.startswith(start)), None)


def memory() -> dict[str, float]:
  """Returns bytes: of this process now and at most, and of its fullest device at most.

  What the system or the device does not tell is left out.
  """
  most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
  found = {"memory/host_peak": float(most * (1 if sys.platform == "darwin" else 1024))}
  sizes = pathlib.Path("/proc/self/statm")
  if sizes.exists():
    found["memory/host"] = float(int(sizes.read_text().split()[1]) * resource.getpagesize())
  stats = [device.memory_stats() or {} for device in jax.local_devices()]
  peaks = [one["peak_bytes_in_use"] for one in stats if "peak_bytes_in_use" in one]
  if peaks:
    found["memory/device_peak"] = float(max(peaks))
  return found
