"""What devices can do, and what they have used."""

import jax
import pytest

from eagle_jax.plan import slices
from eagle_jax.train import peaks


@pytest.mark.parametrize(
  ("kind", "generation"),
  [
    ("TPU v4", "v4"),
    ("TPU v5 lite", "v5e"),
    ("TPU v5e", "v5e"),
    ("TPU v5p", "v5p"),
    ("TPU v5", "v5p"),
    ("TPU v6 lite", "v6e"),
    ("TPU v6e", "v6e"),
  ],
)
def test_peaks_are_those_that_plans_are_made_with(kind, generation):
  assert peaks.peak(kind) == slices.CHIPS[generation].flops


def test_gpus_are_known_by_the_beginning_of_their_names_and_cpus_not_at_all():
  assert peaks.peak("NVIDIA H100 80GB HBM3") == 989e12
  assert peaks.peak("cpu") is None


def test_memory_is_told_where_the_system_tells_it(monkeypatch):
  class Device:
    def __init__(self, stats):
      self.stats = stats

    def memory_stats(self):
      return self.stats

  assert "memory/device_peak" not in peaks.memory()  # a CPU does not tell
  devices = [Device({"peak_bytes_in_use": 5}), Device({"peak_bytes_in_use": 7}), Device(None)]
  monkeypatch.setattr(jax, "local_devices", lambda: devices)
  found = peaks.memory()
  assert found["memory/device_peak"] == 7
  assert 10e6 < found["memory/host_peak"] < 1e12
