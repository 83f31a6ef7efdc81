"""The weight table of a whole merged checkpoint, as EAGLE releases them.

Source: EAGLE; state-dict prefixes of its merged checkpoints.
"""

from collections.abc import Collection

from eagle_jax.convert.rules import Drop, Rule, Table, linear, merge, same
from eagle_jax.language.weights import llama
from eagle_jax.model.eagle import EagleSize
from eagle_jax.model.projector import num_layers
from eagle_jax.registry import lookup
from eagle_jax.vision import EXPERTS

TOWERS = "model.vision_tower."
"""What only the names of a merged checkpoint begin with."""

PROJECTOR = "model.mm_projector."


def expert_prefix(index: int) -> str:
  """Returns what stands before the names of the expert at this place in channel order."""
  return f"{TOWERS}vision_towers.{index}.vision_tower."


def table(size: EagleSize, only: Collection[str] | None = None) -> Table:
  """Returns the rules from every tensor of a merged checkpoint to the parameters of `Eagle`.

  Kernels (out, in) become [in, out], convolutions OIHW become HWIO.

  Args:
    size: of the model.
    only: experts, 'projector' or 'language', by default all; the tensors of what is not
      named are known and left behind.

  Raises:
    EagleError: if the size names an expert or projector that does not exist.
  """
  tables = {
    name: lookup(EXPERTS, name, what="vision expert")
    .table(expert)
    .prefixed(expert_prefix(index), f"vision/{name}/")
    for index, (name, expert) in enumerate(size.experts)
  }
  tables["projector"] = projector(size.projector).prefixed("", "projector/")
  tables["language"] = llama.table(size.language.tied).prefixed("", "language/")
  return merge(
    *(part if only is None or name in only else _left(part, name) for name, part in tables.items())
  )


def _left(table: Table, part: str) -> Table:
  """Returns the table that drops, by name, what another would bring into [in, out]."""
  why = f"of {part!r}, which was not asked for"
  patterns = [rule.source if isinstance(rule, Rule) else rule.pattern for rule in table.rules]
  return Table(tuple(Drop(pattern, why) for pattern in patterns))


def projector(kind: str) -> Table:
  """Returns the rules of a projector below its own path; an MLP's odd indices are GELU.

  A kernel (D, C) becomes [C, D].

  Raises:
    EagleError: if no projector is called `kind`.
  """
  if kind == "linear":
    names = {0: PROJECTOR}
  else:
    names = {layer: f"{PROJECTOR}{2 * layer}." for layer in range(num_layers(kind))}
  rules: list[Rule] = []
  for layer, name in names.items():
    rules.append(Rule(f"{name}weight", f"layer_{layer}/kernel", linear))
    rules.append(Rule(f"{name}bias", f"layer_{layer}/bias", same))
  return Table(tuple(rules))
