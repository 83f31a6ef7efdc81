"""The least that must be sent."""

from eagle_jax import config
from eagle_jax.language import LANGUAGE_MODELS
from eagle_jax.plan import ideal
from eagle_jax.train.stages import FROZEN, TRAINED

LANGUAGE = "language/layers/mlp/up/kernel"
EXPERT = "vision/clip/blocks/mlp/fc1/kernel"
NORM = "language/final_norm/scale"
SHAPES = {LANGUAGE: (2, 64, 32), EXPERT: (2, 64, 32), NORM: (64,)}
SIZE = 2 * 64 * 32 * 2  # bytes in bfloat16


def sent(chosen, whole=(), **axes):
  mesh = {"data": 1, "fsdp": 1, "tensor": 1, "sequence": 1, **axes}
  experiment = config.Experiment(
    name="x", batch_size=8, data=config.Data(max_length=16), mesh=config.Mesh(whole=whole)
  )
  treatments = {path: chosen.get(path, FROZEN) for path in SHAPES}
  size = LANGUAGE_MODELS["demo"]
  return ideal.sent(experiment, SHAPES, treatments, mesh=mesh, language=size)


def test_finetune_sends_six_bytes_per_parameter():
  everything = dict.fromkeys(SHAPES, TRAINED)
  norm = 2 * 64 * 2 * 7 // 8  # whole on every device: its gradient is summed
  assert sent(everything, fsdp=8) == {
    "fsdp": 3 * 2 * SIZE * 7 // 8 + norm,
    "data": 0,
    "tensor": 0,
  }


def test_frozen_weights_are_gathered_as_often_as_they_are_needed():
  # The language model's twice, as gradients pass through it; the expert's once.
  assert sent({}, fsdp=8)["fsdp"] == 3 * SIZE * 7 // 8


def test_what_is_held_whole_is_not_gathered_and_only_its_gradient_is_summed():
  frozen = sent({}, ("vision/.*",), fsdp=4, tensor=2)
  assert frozen["fsdp"] == 2 * SIZE // 2 * 3 // 4  # the language model's
  trained = sent({EXPERT: TRAINED}, ("vision/.*",), fsdp=4, tensor=2)
  assert trained["fsdp"] == frozen["fsdp"] + 2 * SIZE * 3 // 4


def test_gradients_are_summed_over_data_in_shares():
  found = sent({LANGUAGE: TRAINED}, data=2, fsdp=4)
  assert found["data"] == 2 * (SIZE // 4) // 2


def test_a_tensor_axis_divides_weights_and_sums_activations():
  found = sent({LANGUAGE: TRAINED}, fsdp=4, tensor=2)
  assert found["fsdp"] == (3 + 1) * SIZE // 2 * 3 // 4
  size = LANGUAGE_MODELS["demo"]
  activations = 2 * 16 * size.width * 2  # two rows a shard, bfloat16
  assert found["tensor"] == 4 * size.depth * activations * 2 // 2
