"""The metrics file and the status line."""

import io

from eagle_jax.train import metrics


class Terminal(io.StringIO):
  """A stream that says it is a terminal."""

  def isatty(self):
    return True


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


def test_a_terminal_sees_one_line_redrawn():
  out = Terminal()
  progress = metrics.Progress("demo", 2, out=out)
  progress.show(1, "loss 1.0")
  progress.show(2, "loss 0.5")
  text = out.getvalue()
  assert text.count("\n") == 1
  assert "2/2" in text
  assert "took loss 0.5" in text


def test_a_log_file_sees_few_lines():
  out = io.StringIO()
  progress = metrics.Progress("demo", 1000, out=out)
  for done in range(1, 1001):
    progress.show(done)
  assert 1 <= out.getvalue().count("\n") <= 3
  assert "1000/1000" in out.getvalue()
