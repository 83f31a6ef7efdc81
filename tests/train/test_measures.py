"""What an update measures, against sums made by hand."""

import jax
import numpy as np
import pytest

from eagle_jax import config
from eagle_jax.sharding.mesh import make_mesh
from eagle_jax.train import measures, step
from tests.train import bigram

TWO = np.repeat([[1, 1, 1, 1, 1, 1, 2, 2, 2, 2, 2, 2]], 4, axis=0).astype(np.int32)


@pytest.mark.parametrize("accumulate", [1, 2])
@pytest.mark.parametrize("segments", [None, TWO])
@pytest.mark.parametrize("pictures", [(0, 2), (), (0, 1, 2, 3)])
def test_losses_of_conversations_with_and_without_pictures(accumulate, segments, pictures):
  settings = config.Optimizer(accumulate=accumulate)
  tx = bigram.make_optimizer(settings)
  current = bigram.make_state(tx, make_mesh(config.Mesh(), jax.devices()[:1]))
  batch = bigram.make_batch(segments=segments, pictures=pictures)
  _, measured = jax.jit(step.make(bigram.Bigram(), tx, settings))(current, batch)
  table = np.asarray(current.trained["language/table"], np.float64)
  found = {"image": [], "text": []}
  for row in range(4):
    for place in range(1, 12):
      if batch.targets()[row, place - 1]:
        scores = table[max(batch.tokens[row, place - 1], 0)]
        loss = np.log(np.exp(scores).sum()) - scores[batch.tokens[row, place]]
        # The placeholder stands at 3: in packed rows the second half knows nothing of it.
        seen = row in pictures and (segments is None or place < 6)
        found["image" if seen else "text"].append(loss)
  for name, losses in found.items():
    assert float(measured[f"targets/{name}"]) == len(losses)
    mean = np.mean(losses) if losses else 0.0
    np.testing.assert_allclose(float(measured[f"loss/{name}"]), mean, rtol=1e-5)
  everything = found["image"] + found["text"]
  np.testing.assert_allclose(float(measured["loss"]), np.mean(everything), rtol=1e-5)
  assert float(measured["targets"]) == len(everything)


def test_norms_by_part_are_those_of_its_gradients():
  grads = {
    "language/table": np.full((2, 2), 3.0, np.float32),
    "vision/clip/a": np.full((4,), 1.0, np.float32),
    "vision/clip/b": np.full((5,), 1.0, np.float32),
    "vision/sam/a": np.zeros((5,), np.float32),
  }
  norms = {name: float(norm) for name, norm in measures.group_norms(grads).items()}
  assert norms == {"grad_norm/language": 6, "grad_norm/vision/clip": 3, "grad_norm/vision/sam": 0}
