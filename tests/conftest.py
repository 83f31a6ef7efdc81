"""What every test runs under: eight emulated CPU devices, strict promotion, no other device.

And a vocabulary trained on the spot, and small data sets on disk.
"""

import json

import jax
import numpy as np
import pytest
import sentencepiece
from PIL import Image

from eagle_jax import config
from eagle_jax.cli import devices
from eagle_jax.data import tokenize
from tests.datasets import record

devices.start(8)
jax.config.update("jax_numpy_dtype_promotion", "strict")
jax.config.update("jax_numpy_rank_promotion", "raise")
jax.config.update("jax_default_matmul_precision", "highest")

SENTENCES = """
A chat between a curious user and an artificial intelligence assistant.
The assistant gives helpful, detailed, and polite answers to the user's questions.
USER: What is shown in the picture? ASSISTANT: A red house beside a river.
USER: How many people are there? ASSISTANT: Three people and a small dog.
Which digit is this? It is 7. Which one is older, the first or the second?
""".strip().splitlines()


@pytest.fixture(scope="session")
def vocabulary(tmp_path_factory):
  """Path of a Llama-like SentencePiece model: BPE, byte fallback, spaces kept."""
  prefix = tmp_path_factory.mktemp("vocabulary") / "tokenizer"
  sentencepiece.SentencePieceTrainer.train(
    sentence_iterator=iter(SENTENCES * 4),
    model_prefix=str(prefix),
    model_type="bpe",
    vocab_size=400,
    byte_fallback=True,
    normalization_rule_name="identity",
    remove_extra_whitespaces=False,
    hard_vocab_limit=False,
    minloglevel=2,
  )
  return str(prefix.with_suffix(".model"))


@pytest.fixture(scope="session")
def tokenizer(vocabulary):
  return tokenize.load(vocabulary)


@pytest.fixture
def dataset(tmp_path, vocabulary):
  """Returns a function: writes `count` one-picture records and returns their config.Data."""

  def write(count, *, entries=(), broken=(), **fields):
    folder = tmp_path / "pictures"
    folder.mkdir()
    made = []
    for n in range(count):
      name = f"{n}.png"
      if n in broken:
        (folder / name).write_bytes(b"\x89PNG\r\n\x1a\nthis is none")
      else:
        Image.fromarray(np.full((6, 8, 3), 10 * n, np.uint8)).save(folder / name)
      made.append(record(str(n), name, f"answer {n}"))
    path = tmp_path / "records.json"
    path.write_text(json.dumps([*made, *entries]))
    known = {"template": "brief", "max_length": 64, "bad_budget": 0.0, **fields}
    return config.Data(records=str(path), images=str(folder), tokenizer=vocabulary, **known)

  return write
