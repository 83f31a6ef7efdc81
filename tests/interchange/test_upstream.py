"""config.json of a merged checkpoint: read into a model, written from one, refused with reasons."""

import pytest

from eagle_jax import config
from eagle_jax.convert.source import Entry
from eagle_jax.errors import EagleError
from eagle_jax.interchange import upstream
from eagle_jax.language import LANGUAGE_MODELS
from eagle_jax.model import eagle

X5 = ("clip", "convnext", "sam", "eva02", "pix2struct")
X4 = ("clip", "convnext", "eva02", "pix2struct")

# As in the public Eagle-X5-7B; an older transformers wrote no rope_theta.
VICUNA = {
  "architectures": ["EagleLlamaForCausalLM"],
  "model_type": "eagle_llama",
  "hidden_size": 4096,
  "intermediate_size": 11008,
  "num_hidden_layers": 32,
  "num_attention_heads": 32,
  "num_key_value_heads": 32,
  "rms_norm_eps": 1e-05,
  "vocab_size": 32000,
  "mm_vision_tower": "clip-448;convnext-1024;sam-1024;det-1024;pix2struct-1024",
  "mm_hidden_size": 7680,
  "mm_projector_type": "mlp2x_gelu",
}


def test_a_released_file_is_a_known_model():
  model = upstream.read(VICUNA, rows=32000, place="here")
  assert model == config.Model(experts=X5, language="vicuna_7b")


@pytest.mark.parametrize("experts", [X4, X5])
@pytest.mark.parametrize("language", ["vicuna_7b", "vicuna_13b", "llama3_8b", "yi_34b"])
def test_what_is_written_is_read_back(experts, language):
  model = config.Model(experts=experts, language=language)
  written = upstream.write(model, eagle.build(model).size, dtype="bfloat16")
  assert upstream.OWN not in written
  assert written["mm_hidden_size"] == (7680 if "sam" in experts else 6656)
  assert upstream.read(written, rows=LANGUAGE_MODELS[language].vocab, place="here") == model


def test_rows_are_those_of_the_tensor_whatever_the_file_says():
  fields = VICUNA | {"vocab_size": 31999}
  assert upstream.read(fields, rows=32001, place="here").vocab_rows == 32001
  built = eagle.build(upstream.read(fields, rows=32001, place="here"))
  assert built.size.language.vocab == 32001


def test_a_model_that_upstream_cannot_build_says_so():
  model = config.Model(
    experts=("clip@demo",), language="demo", image_size=64, grid_side=4, projector="linear"
  )
  written = upstream.write(model, eagle.build(model).size, dtype="float32")
  assert upstream.read(written, rows=512, place="here") == model
  with pytest.raises(EagleError, match="'eagle_jax' must describe a model"):
    upstream.read(written | {upstream.OWN: {"expert": 1}}, rows=512, place="here")


@pytest.mark.parametrize(
  ("change", "told"),
  [
    ({"mm_vision_tower": "clip-449"}, "did you mean 'clip-448'"),
    ({"hidden_size": 4095}, r"no row of the table \(hidden_size=4095"),
  ],
)
def test_what_is_not_known_is_named(change, told):
  with pytest.raises(EagleError, match=told):
    upstream.read(VICUNA | change, rows=32000, place="here")


def test_a_file_of_another_kind_is_refused():
  fields = {name: value for name, value in VICUNA.items() if name != "mm_vision_tower"}
  with pytest.raises(EagleError, match="must have the field 'mm_vision_tower'"):
    upstream.read(fields, rows=32000, place="here")


def test_the_rows_are_counted_on_the_embedding_table():
  name = "model.embed_tokens.weight"
  assert upstream.rows_of({name: Entry((128257, 4096), "bfloat16")}) == 128257
  with pytest.raises(EagleError, match=r"must hold 'model\.embed_tokens\.weight'"):
    upstream.rows_of({})
