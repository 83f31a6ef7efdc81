"""What an exchange carries, by its shape."""

import pytest

from eagle_jax.plan import purpose
from tests.plan import cases

KNOWN = purpose.parameter_shapes([(5, 64, 96), (8, 8, 3, 32), (64,)], 2)
MESH = {"data": 1, "fsdp": 4, "tensor": 2, "sequence": 1}


@pytest.mark.parametrize(
  ("shape", "expected"),
  [
    ("bf16[64,96]", True),
    ("bf16[1,1,96,64]", True),
    ("f32[5,64,96]", True),
    ("bf16[64,48]", True),  # a share along tensor
    ("bf16[64,3,32]", True),  # queries, keys and values
    ("bf16[8,8,3,32]", True),
    ("bf16[2,64,96]", False),
    ("bf16[16,64,64]", False),
  ],
)
def test_parameters_are_known_by_their_sides(shape, expected):
  assert purpose.of_parameter(cases.exchange(shape=shape), KNOWN) == expected


def test_only_large_exchanges_along_fsdp_can_be_needless():
  large = {"sent": 2**21}
  sent = (
    cases.exchange(parameter=False, **large),
    cases.exchange(parameter=False, axes=("tensor",), **large),
    cases.exchange(parameter=False),
    cases.exchange(**large),
    cases.exchange(kind="all-reduce", axes=("data", "fsdp"), sent=2**22),
    cases.exchange(kind="all-reduce", parameter=False, **large),
  )
  found = list(purpose.needless(sent, MESH))
  assert [name for name, _ in found] == ["sum of a whole parameter", "gather of activations"]
  assert list(purpose.needless(sent, {**MESH, "fsdp": 1})) == []


def test_the_share_is_of_parameters_gathered_in_loops():
  others = (
    cases.exchange(looped=False, asynchronous=False),
    cases.exchange(parameter=False, asynchronous=False),
  )
  half = (cases.exchange(), cases.exchange(asynchronous=False))
  assert purpose.hidden_share((*others, *half)) == 0.5
  assert purpose.hidden_share(others) is None
