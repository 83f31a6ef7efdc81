"""Files that grow by whole pieces, on a disk that fills up."""

import errno
import os

from eagle_jax.train.appended import Appended


def test_pieces_follow_what_is_kept(tmp_path):
  path = tmp_path / "made" / "log"
  first = Appended(path)
  assert first.append(b"one\n")
  assert first.append(b"two\n")
  first.close()
  again = Appended(path, keep=4)
  assert path.read_bytes() == b"one\n"
  assert again.append(b"three\n")
  again.close()
  assert path.read_bytes() == b"one\nthree\n"


def test_a_full_disk_drops_a_piece_and_tears_none(tmp_path, monkeypatch, capsys):
  """It takes two bytes of the piece before it is full; later there is room again."""
  path = tmp_path / "log"
  file = Appended(path)
  assert file.append(b"first\n")
  write = os.pwrite

  def full(handle, piece, place):
    if len(piece) < 7:
      raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    return write(handle, piece[:2], place)

  with monkeypatch.context() as patched:
    patched.setattr(os, "pwrite", full)
    assert not file.append(b"second\n")
    assert path.read_bytes() == b"first\n"
    assert not file.append(b"third__\n")
  assert file.append(b"fourth\n")
  assert file.dropped == 2
  file.close()
  assert path.read_bytes() == b"first\nfourth\n"
  told = capsys.readouterr().err
  assert told.count("No space left on device") == 1
  assert f"{path} lacks 2 pieces" in told


def test_a_file_that_cannot_be_opened_is_tried_again(tmp_path, capsys):
  folder = tmp_path / "taken"
  folder.write_text("a file where a folder should be")
  file = Appended(folder / "log")
  assert not file.append(b"one\n")
  folder.unlink()
  assert file.append(b"two\n")
  file.close()
  assert (folder / "log").read_bytes() == b"two\n"
  assert capsys.readouterr().err.count("cannot be written") == 1
