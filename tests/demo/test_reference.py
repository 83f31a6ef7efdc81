"""The reference against closed forms; that it agrees with the decoder is tests/parity's."""

import numpy as np
import pytest

from eagle_jax.demo import reference
from eagle_jax.language import LANGUAGE_MODELS
from tests.convert import gguf_files


def test_a_pair_of_channels_turns_by_its_position_and_frequency():
  x = np.zeros((3, 1, 4))
  x[:, 0, 0] = 1  # first pair, turns by the position itself
  x[:, 0, 2] = 1  # second pair, by position / theta^(1/2)
  turned = reference.turned(x, 100.0)[:, 0]
  position = np.arange(3)
  want = [np.cos(position), np.sin(position), np.cos(position / 10), np.sin(position / 10)]
  np.testing.assert_allclose(turned, np.stack(want, -1), atol=1e-12)


def test_a_later_token_changes_no_earlier_score(tmp_path):
  size = LANGUAGE_MODELS["tiny"]
  model = reference.Reference(gguf_files.llama(tmp_path / "x.gguf", size), np.float64)
  short, long = model.logits([3, 5, 7]), model.logits([3, 5, 7, 11])
  assert short.shape == (3, size.vocab)
  np.testing.assert_allclose(long[:3], short, rtol=1e-12)
  with pytest.raises(IndexError):
    model.logits([size.vocab])
