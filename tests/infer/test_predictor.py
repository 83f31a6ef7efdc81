import dataclasses
import functools

import jax
import numpy as np
import pytest
from PIL import Image

from eagle_jax import config
from eagle_jax.data import tokenize
from eagle_jax.data.questions import Question
from eagle_jax.data.records import Record, Turn
from eagle_jax.errors import EagleError
from eagle_jax.infer import predictor as predicting
from eagle_jax.infer.predictor import Predictor, Settings, doubled, ladder
from eagle_jax.language import LANGUAGE_MODELS
from eagle_jax.model.eagle import Eagle, EagleSize, init_params
from eagle_jax.vision.clip import SIZES as CLIP

COLOURS = {"red": (250, 10, 10), "green": (10, 250, 10), "blue": (20, 20, 240)}


class Letters:
  """A vocabulary of one token per printable ASCII character, after three special ones."""

  bos_id, eos_id, pad_id, unk_id, vocab_size, digest = 1, 2, 0, 0, 97, "letters"
  habits = tokenize.Habits(True, True, {"<unk>": 0, "<s>": 1, "</s>": 2})

  def encode(self, text, *, continues=False):
    return [min(max(ord(c) - 30, 3), 96) for c in text]

  def decode(self, ids):
    return "".join(chr(i + 30) for i in ids if i > 2)

  def special(self, name):
    return {"<s>": 1, "</s>": 2}[name]


@functools.cache
def model():
  size = EagleSize(
    experts=(("clip", CLIP["tiny"]),),
    language=LANGUAGE_MODELS["tiny"],
    image_size=42,
    grid_side=2,
  )
  eagle = Eagle(size)
  params = jax.jit(functools.partial(init_params, eagle))(jax.random.key(3))
  # Louder, so that no near tie decides and the picture has a say.
  params["projector"] = jax.tree.map(lambda leaf: 20 * leaf, params["projector"])
  params["language"]["head"]["kernel"] *= 5.0
  return eagle, params


@pytest.fixture(scope="module")
def data(tmp_path_factory):
  folder = tmp_path_factory.mktemp("pictures")
  for name, colour in COLOURS.items():
    Image.new("RGB", (50, 30), colour).save(folder / f"{name}.png")
  return config.Data(images=str(folder), template="brief", max_images=2)


def question(text, *names):
  record = Record(text, tuple(f"{n}.png" for n in names), (), "asked.json", 1)
  turns = (Turn("human", "<image>\n" * len(names) + text),)
  return Question(record, turns, "")


ASKED = [
  question("Which?", "red"),
  question("And this colour?", "green"),
  question("Nothing to see."),
  question("Both?", "red", "blue"),
  question("Which?", "blue"),
]


def make(data, **settings):
  eagle, params = model()
  return Predictor(
    eagle, params, Letters(), data=data, settings=Settings(max_new_tokens=5, **settings)
  )


@pytest.fixture(scope="module")
def answers(data):
  return list(make(data, rows=4).answers(ASKED))


def test_every_question_has_its_answer_whatever_stands_beside_it(data, answers):
  assert len(answers) == 5
  assert list(make(data, rows=2).answers(ASKED[::-1])) == answers[::-1]


def test_pictures_and_words_have_a_say(answers):
  assert answers[0] != answers[4], "the same question about another picture"
  assert answers[1] != answers[2]


def test_asking_in_plain_words_gives_the_same(data, answers):
  predictor = make(data)
  picture = {name: Image.new("RGB", (50, 30), colour) for name, colour in COLOURS.items()}
  assert predictor.ask("Which?", [picture["red"]]) == answers[0]
  assert predictor.ask("Nothing to see.") == answers[2]
  both = [picture["red"], picture["blue"]]
  assert predictor.ask("<image>\n<image>\nBoth?", both) == answers[3]
  assert predictor.ask("Both?", both) == answers[3]


def test_questions_are_asked_as_data_compat_says(data, monkeypatch):
  theirs = dataclasses.replace(data, template="v1", compat="upstream")
  monkeypatch.setattr(Predictor, "_say", lambda self, rows: rows)
  row = make(theirs)._row(question("<unk>?"))
  asked = make(theirs).ask("<unk>?")
  np.testing.assert_array_equal(asked.tokens, row.tokens)
  assert (
    len(make(dataclasses.replace(theirs, compat="")).ask("<unk>?").tokens) == len(asked.tokens) + 5
  )
  with pytest.raises(EagleError, match=r"needs a data\.template that the original has"):
    make(dataclasses.replace(data, compat="upstream"))


def test_placeholders_and_pictures_must_agree(data):
  with pytest.raises(EagleError, match="2 placeholders and 0 images"):
    make(data).ask("<image> and <image>")


def test_shapes_come_from_a_ladder(data):
  before = predicting.embed._cache_size()
  list(make(data, rows=2).answers([question("a" * n, "red") for n in range(10, 18)]))
  assert predicting.embed._cache_size() <= before + 1


def test_draws_differ_and_follow_the_seed(data):
  runs = [
    list(make(data, rows=4, temperature=5.0, seed=seed).answers(ASKED[:2] * 2))
    for seed in (0, 0, 1)
  ]
  assert runs[0] == runs[1] != runs[2]


def test_an_end_id_is_not_spoken(data):
  predictor = make(data)
  tokens = np.array([ord(" ") - 30, ord("a") - 30, ord("b") - 30, Letters.eos_id])
  assert predictor._words(tokens) == "ab"


def test_a_prompt_beyond_the_model_names_both_lengths(data):
  with pytest.raises(EagleError, match=r"has 92\d\d positions, the longest allowed has 8187"):
    make(data).ask("x" * 9200)


def test_a_vocabulary_beyond_the_model_is_refused(data):
  eagle, params = model()
  tokenizer = Letters()
  tokenizer.vocab_size = 98
  with pytest.raises(EagleError, match="98 ids, the language model knows 97"):
    Predictor(eagle, params, tokenizer, data=data)


def test_settings_that_make_no_sense_are_named_together(data):
  with pytest.raises(EagleError, match=r"rows must be positive, it is 0; .*top_p .* it is 0"):
    make(data, rows=0, top_p=0.0)
  with pytest.raises(EagleError, match="8192 positions, it is 8192"):
    predicting._demand(Settings(max_new_tokens=8192), 8192)


def test_ladders():
  assert [doubled(n) for n in (0, 1, 2, 3, 4, 5, 8, 9)] == [0, 1, 2, 4, 4, 8, 8, 16]
  assert ladder(100) == (16, 24, 32, 48, 64, 96, 100)
  assert ladder(16) == (16,)
  assert ladder(7) == (7,)
  steps = np.array(ladder(4000))
  assert (np.diff(steps) > 0).all()
  assert (steps[1:] <= 1.5 * steps[:-1]).all()
