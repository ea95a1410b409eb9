"""From finished runs to `results.json` of a study: entries and comparisons of every regime.

An entry is keyed by its method, and by METHOD@REGIME for every regime but the first.
"""

from collections.abc import Mapping
from typing import Any

from dream_jax.config.recipe import Recipe
from dream_jax.evaluation.comparisons import compare
from dream_jax.evaluation.evaluate import Row
from dream_jax.evaluation.metrics import primary_metric
from dream_jax.experiments.results_file import entry, head
from dream_jax.models.registry import find_method
from dream_jax.spec import DatasetSpec


def assemble_study(
  recipe: Recipe, config: Any, done: list[Any], spec: DatasetSpec, sizes: Mapping[str, int]
) -> dict[str, Any]:
  """The content of `results.json`.

  Args:
    recipe: the recipe of the study.
    config: the ConfigDict it came from, for the record.
    done: (unit, line of the ledger, finished run) of every run.
    spec: the data.
    sizes: samples of each split.
  """
  methods: dict[str, Any] = {}
  rows: dict[str, dict[str, Row]] = {}
  searches: dict[str, Any] = {}
  for unit, record, finished in done:
    if unit.search:
      searches[unit.method] = {**finished.facts, 'wall_seconds': record['wall_seconds']}
      continue
    for row in finished.rows:
      rows.setdefault(unit.regime, {})[row.name] = row
      methods[entry_key(row.name, unit.regime, recipe)] = {
        **entry(row, finished.facts, find_method(unit.method), recipe, spec, unit.regime),
        'regime': unit.regime,
        'valuation': row.valuation,
        'test_selected': row.test_selected,
        'wall_seconds': record['wall_seconds'],
      }
  metric, comparisons = primary_metric(spec)[0], []
  for regime, found in rows.items():
    comparisons += compare(
      recipe.model.name, found, metric, key=lambda name, r=regime: entry_key(name, r, recipe), regime=regime
    )
  return {
    **head(spec, sizes, config),
    'regimes': list(dict.fromkeys(recipe.study.regimes)),
    'reference': recipe.model.name,
    'search': searches or None,
    'methods': methods,
    'comparisons': comparisons,
    'study_seconds': sum(record['wall_seconds'] for _, record, _ in done),
  }


def entry_key(row: str, regime: str, recipe: Recipe) -> str:
  """Key of a row in `results.json`."""
  return row if regime == recipe.study.regimes[0] else f'{row}@{regime}'
