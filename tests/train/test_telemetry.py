"""What a run tells while it goes."""

import jax.numpy as jnp
import pytest

from eagle_jax.train import metrics, prepared, telemetry
from tests.train.small_run import experiment


def test_only_logged_updates_are_written_and_the_last_always(tmp_path, dataset):
  chosen = experiment(dataset(5), steps=5, log_every=2)
  told = telemetry.Telemetry(prepared.prepare(chosen, str(tmp_path), num_records=5), 0)
  logged = [told.step(n, {"loss": jnp.float32(n)}) for n in range(1, 6)]
  told.close()
  assert logged == [False, True, False, True, True]
  rows = metrics.read(str(tmp_path))
  assert [(row["step"], row["loss"]) for row in rows] == [(2, 2.0), (4, 4.0), (5, 5.0)]
  assert rows[-1]["lr"] == pytest.approx(0, abs=1e-5)
  assert told.loss == 5
