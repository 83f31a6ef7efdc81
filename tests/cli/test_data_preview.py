import html
import re

import numpy as np
import pytest

from eagle_jax.cli import data_preview
from eagle_jax.cli.main import main
from eagle_jax.data import mixture
from eagle_jax.data.loader import Loader
from eagle_jax.types import PLACEHOLDER
from tests.datasets import record


def asked(data, out, *flags):
  """The command for a data set of the tests."""
  given = (f"--images={data.images}", f"--tokenizer={data.tokenizer}", f"--out={out}")
  sizes = ("--template=brief", "--tokens-per-image=4", "--image-size=8", "--max-length=64")
  return ["data", "preview", data.records, *given, *sizes, *flags]


def test_the_page_shows_what_training_gets(dataset, tmp_path, tokenizer, capsys):
  data = dataset(3, broken=[1], entries=[record("x", "2.png", "<i>it</i>\nis")], max_length=64)
  out = tmp_path / "new" / "preview.html"
  assert main(asked(data, out)) == 0
  assert capsys.readouterr().out == f"{out}: 4 of 4 records\n"
  page = out.read_text()
  assert page.count("data:image/png;base64,") == 3
  assert page.count("picture 1: 4 positions") == 3
  assert "unreadable image" in page
  assert "<i>it" not in page
  last = page.split("<section>")[-1]
  loader = Loader(
    mixture.load(data)[0], data, tokenizer=tokenizer, image_size=8, tokens_per_image=4
  )
  row = loader.read(3)
  text = [int(i) for i in row.tokens if i != PLACEHOLDER]
  assert [int(i) for i in re.findall(r'title="id (\d+)', last)] == text
  assert last.count(", target") == row.loss_mask.sum()
  shown = re.findall(r'<span class="on"[^>]*>([^<]*)</span>', last)
  assert html.unescape("".join(shown)).strip() == "<i>it</i>↵\nis"


def test_a_few_records_from_any_one_on(dataset, tmp_path, capsys):
  data, out = dataset(4), tmp_path / "p.html"
  assert main(asked(data, out, "-n", "2", "--first=3")) == 0
  assert re.findall(r"<h2>.*:(\d+)</h2>", out.read_text()) == ["3", "4"]
  assert main(asked(data, out, "--first=5")) == 2
  assert "--first must be at most the number of records, 4" in capsys.readouterr().err


def test_a_tokenizer_is_needed(dataset, capsys):
  assert main(["data", "preview", dataset(1).records]) == 2
  assert "data preview needs --tokenizer=FILE" in capsys.readouterr().err


@pytest.mark.parametrize(
  ("text", "want"),
  [
    ("A red house", "A red house"),
    ("one\ntwo", "one\ntwo"),
    ("a\x07b", "a\ufffdb"),
  ],
)
def test_pieces_join_to_the_text(tokenizer, text, want):
  shown = data_preview.Shown(None, tokenizer, 4)
  ids = np.array(tokenizer.encode(text), np.int32)
  joined = "".join(shown.text(ids, at) for at in range(len(ids)))
  assert joined.replace("↵", "") == want
