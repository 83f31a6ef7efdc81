import hashlib

import pytest

from eagle_jax.demo import provenance, tokenizer
from eagle_jax.errors import EagleError


def test_what_is_shipped_is_found_and_told(tmp_path):
  provenance.ship({"a.model": b"abc"}, {"Licence": "BSD-3-Clause"}, tmp_path)
  provenance.ship({"b.bin": b"de"}, {"Licence": "BSD-3-Clause", "Seed": "0"}, tmp_path)
  assert provenance.asset("a.model", tmp_path).read_bytes() == b"abc"
  assert provenance.asset("b.bin", tmp_path).read_bytes() == b"de"
  story = (tmp_path / "PROVENANCE.md").read_text()
  assert f"| `a.model` | 3 | `{hashlib.sha256(b'abc').hexdigest()}` |" in story
  assert "## Seed\n\n0" in story


def test_a_changed_file_is_refused(tmp_path):
  provenance.ship({"a.model": b"abc"}, {}, tmp_path)
  (tmp_path / "a.model").write_bytes(b"abd")
  with pytest.raises(EagleError, match="SHA-256"):
    provenance.asset("a.model", tmp_path)


def test_a_missing_file_says_what_makes_it(tmp_path):
  with pytest.raises(EagleError, match="--language-model"):
    provenance.asset("a.model", tmp_path)


def test_too_many_bytes_are_refused(tmp_path):
  provenance.ship({"a.model": bytes(provenance.LIMIT)}, {}, tmp_path)
  with pytest.raises(EagleError, match="3000000 bytes"):
    provenance.ship({"b.model": b"x"}, {}, tmp_path)
  # The same name takes the place of what was there.
  provenance.ship({"a.model": b"x"}, {}, tmp_path)


def test_what_the_project_ships_is_whole():
  pieces = provenance.asset(provenance.TOKENIZER).read_bytes()
  tokenizer.check_single(pieces, ["7", "right", "below", "corner", "red", "yellow"])
  assert provenance.asset(provenance.LANGUAGE_MODEL).stat().st_size < provenance.LIMIT
