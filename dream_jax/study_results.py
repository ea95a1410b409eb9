"""From finished runs to `results.json` of a study: entries and comparisons of every regime.

An entry is keyed by its method, and by METHOD@REGIME for every regime but the first.
"""

from collections.abc import Mapping
from typing import Any

from dream_jax.comparisons import compare
from dream_jax.evaluate import Row
from dream_jax.experiment import environment, regime_text
from dream_jax.metrics import primary_metric
from dream_jax.models.registry import find_method
from dream_jax.recipe import Recipe
from dream_jax.writers import plain


def assemble_study(recipe: Recipe, config: Any, done: list[Any], data: Mapping[str, Any]) -> dict[str, Any]:
  """The content of `results.json`.

  Args:
    recipe: of the study.
    config: the ConfigDict it came from, for the record.
    done: (unit, line of the ledger, finished run) of every run.
    data: 'spec' and the sizes of the splits.
  """
  spec = data['spec']
  metric, higher = primary_metric(spec)
  methods: dict[str, Any] = {}
  rows: dict[str, dict[str, Row]] = {}
  searches: dict[str, Any] = {}
  for unit, record, finished in done:
    if unit.search:
      searches[unit.method] = {**finished.facts, 'wall_seconds': record['wall_seconds']}
      continue
    method = find_method(unit.method)
    for row in finished.rows:
      rows.setdefault(unit.regime, {})[row.name] = row
      facts = dict(finished.facts)
      if method.separate:  # A row of each modality; each was selected by itself.
        for fact in ('best_step', 'validation_score'):
          facts[fact] = [values[spec.index(row.name)] for values in facts[fact]]
      methods[entry_key(row.name, unit.regime, recipe)] = {
        'title': row.title,
        'method': unit.method,
        'regime': unit.regime,
        'uses_oracle': list(method.uses_oracle),
        'source': method.source,
        'seeds': list(recipe.seeds),
        'selection': 'validation' if method.module is not None else 'none',
        'train_regime': regime_text(method, unit.regime, recipe),
        'protocols': row.protocols,
        'contribution': row.contribution,
        'valuation': row.valuation,
        'test_selected': row.test_selected,
        **facts,
        'wall_seconds': record['wall_seconds'],
      }
  comparisons = []
  for regime, found in rows.items():
    comparisons += compare(
      recipe.model.name, found, metric, key=lambda name, r=regime: entry_key(name, r, recipe), regime=regime
    )
  return {
    'schema_version': 1,
    'dataset': spec.name,
    'data_kind': spec.data_kind,
    'task': spec.task,
    'num_outputs': spec.num_outputs,
    'modalities': list(spec.names),
    'primary_metric': metric,
    'higher_is_better': higher,
    **{name: data[name] for name in ('num_train', 'num_validation', 'num_test')},
    'environment': environment(),
    'config': plain(config),
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
