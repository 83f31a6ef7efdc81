"""Files of rows."""

from eagle_jax.train import metrics


def test_rows_come_back_in_order(tmp_path):
  log = metrics.Metrics(str(tmp_path), start=0)
  log.write(1, {"loss": 2.0})
  log.write(2, {"loss": 1.0})
  log.close()
  assert metrics.read(str(tmp_path)) == [{"step": 1, "loss": 2.0}, {"step": 2, "loss": 1.0}]


def test_a_resumed_run_forgets_what_came_after_its_checkpoint(tmp_path):
  log = metrics.Metrics(str(tmp_path), start=0)
  for step in range(1, 6):
    log.write(step, {"loss": float(step)})
  log.close()
  log = metrics.Metrics(str(tmp_path), start=3)
  log.write(4, {"loss": 40.0})
  log.close()
  assert [row["loss"] for row in metrics.read(str(tmp_path))] == [1.0, 2.0, 3.0, 40.0]


def test_a_line_cut_short_by_a_kill_is_left_out(tmp_path):
  (tmp_path / metrics.FILE).write_text('{"step": 1}\n{"step": 2, "lo')
  assert metrics.read(str(tmp_path)) == [{"step": 1}]


def test_a_line_that_a_bad_disk_garbled_is_left_out_and_ends_nothing(tmp_path):
  (tmp_path / metrics.FILE).write_bytes(b'{"step": 1}\n{"st\xffp": \n[7]\n{"step": 3}\n')
  assert metrics.read(str(tmp_path)) == [{"step": 1}, {"step": 3}]
  log = metrics.Metrics(str(tmp_path), start=2)
  log.write(3, {"loss": 0.5})
  log.close()
  assert metrics.read(str(tmp_path)) == [{"step": 1}, {"step": 3, "loss": 0.5}]


def test_a_file_of_all_attempts_keeps_the_rows_of_lost_updates(tmp_path):
  for step in (5, 3):
    log = metrics.Metrics(str(tmp_path), name=metrics.SPEED_FILE)
    log.write(step, {"seconds": 1.0})
    log.close()
  assert [row["step"] for row in metrics.read(str(tmp_path), metrics.SPEED_FILE)] == [5, 3]


def test_a_file_that_cannot_be_read_is_not_emptied(tmp_path, monkeypatch):
  path = tmp_path / metrics.FILE
  path.write_text('{"step": 1}\n')

  def unreadable(self):
    raise OSError("bad sector")

  with monkeypatch.context() as patched:
    patched.setattr(type(path), "read_bytes", unreadable)
    assert metrics.read(str(tmp_path)) == []
    log = metrics.Metrics(str(tmp_path), start=0)
  log.write(2, {})
  log.close()
  assert [row["step"] for row in metrics.read(str(tmp_path))] == [1, 2]
