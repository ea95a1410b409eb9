"""Runs that train side by side in one compiled program: each has a seed, and may have numeric settings of its own."""

import dataclasses
from typing import Any

from dream_jax.config.recipe import VECTOR_FIELDS, Recipe
from dream_jax.errors import UserError, did_you_mean


@dataclasses.dataclass(frozen=True)
class Runs:
  """S runs.

  Attributes:
    seeds: one seed a run.
    values: (field, one value a run) pairs of settings that differ between runs; the recipe's value holds elsewhere.
  """

  seeds: tuple[int, ...]
  values: tuple[tuple[str, tuple[float, ...]], ...] = ()

  def __post_init__(self):
    for field, values in self.values:
      if field not in VECTOR_FIELDS:
        raise UserError(f'{field!r} cannot differ between runs; {did_you_mean(field, VECTOR_FIELDS)}')
      if len(values) != len(self.seeds):
        raise UserError(f'{field} has {len(values)} values for {len(self.seeds)} runs; expected one each')

  def __len__(self) -> int:
    return len(self.seeds)

  def of(self, field: str) -> tuple[float, ...] | None:
    """The runs' values of a field, None where they share the recipe's."""
    return dict(self.values).get(field)


def with_values(recipe: Recipe, values: dict[str, Any]) -> Recipe:
  """The recipe with other values of `VECTOR_FIELDS`, which may be traced."""
  groups: dict[str, dict[str, Any]] = {}
  for path, value in values.items():
    group, _, field = path.partition('.')
    groups.setdefault(group, {})[field] = value
  return dataclasses.replace(
    recipe, **{group: dataclasses.replace(getattr(recipe, group), **fields) for group, fields in groups.items()}
  )
