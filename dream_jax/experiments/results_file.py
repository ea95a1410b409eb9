"""From finished runs to `results.json`, whichever mode writes it: the head, an entry a row of the table, comparisons.

An entry is keyed by its row, and by ROW@REGIME for every training regime but the first.
"""

import os
import platform
from collections.abc import Mapping, Sequence
from typing import Any

import jax

from dream_jax.config.recipe import Recipe, recipe_of
from dream_jax.evaluation.comparisons import compare
from dream_jax.evaluation.evaluate import Row
from dream_jax.evaluation.metrics import primary_metric
from dream_jax.experiments.engine import Done
from dream_jax.experiments.units import Plan
from dream_jax.missingness.missing import describe
from dream_jax.models.registry import Method, find_method
from dream_jax.spec import DatasetSpec
from dream_jax.workdir import run_folders
from dream_jax.workdir.sealed import plain


def assemble(
  plan: Plan, recipe: Recipe, config: Any, done: Sequence[Done], spec: DatasetSpec, sizes: Mapping[str, int]
) -> dict[str, Any]:
  """The content of `results.json`.

  Args:
    plan: what was made.
    recipe: how it was trained.
    config: the ConfigDict it came from, for the record.
    done: every run of the plan.
    spec: the data.
    sizes: samples of each split.
  """
  methods: dict[str, Any] = {}
  rows: dict[str, dict[str, Row]] = {}
  searches: dict[str, Any] = {}
  first = next(iter(plan.regimes))

  def key(row: str, regime: str) -> str:
    return row if regime == first else f'{row}@{regime}'

  for one in done:
    regime, facts = one.unit.regime, one.finished.facts
    if one.unit.search:
      searches[one.unit.method] = facts
      continue
    for row in one.finished.rows:
      rows.setdefault(regime, {})[row.name] = row
      methods[key(row.name, regime)] = {
        **_entry(row, facts, find_method(one.unit.method), recipe, spec, regime),
        'regime': regime,
        'valuation': row.valuation if plan.valuation else None,
        'test_selected': row.test_selected,
      }
  metric, comparisons = primary_metric(spec)[0], []
  for regime, found in rows.items():
    comparisons += compare(plan.methods[0], found, metric, key=lambda name, r=regime: key(name, r), regime=regime)
  return {
    **_head(spec, sizes, config),
    'mode': plan.mode,
    'regimes': list(plan.regimes),
    'reference': plan.methods[0],
    'search': searches or None,
    'methods': methods,
    'comparisons': comparisons,
    'wall_seconds': sum(one.finished.facts['wall_seconds'] for one in done),
    run_folders.IN_RESULTS: [
      run_folders.named(one.unit.method, one.unit.regime, one.folder, one.key) for one in done if not one.unit.search
    ],
  }


def _head(spec: DatasetSpec, sizes: Mapping[str, int], config: Any) -> dict[str, Any]:
  """What was measured on what, and where.

  Args:
    spec: the data.
    sizes: samples of each split.
    config: the ConfigDict, for the record.
  """
  metric, higher = primary_metric(spec)
  return {
    'schema_version': 2,
    'dataset': spec.name,
    'data_kind': spec.data_kind,
    'task': spec.task,
    'num_outputs': spec.num_outputs,
    'modalities': list(spec.names),
    'primary_metric': metric,
    'higher_is_better': higher,
    **{f'num_{name}': sizes[name] for name in ('train', 'validation', 'test')},
    'environment': environment(),
    'config': plain(config),
  }


def _entry(
  row: Row, facts: Mapping[str, Any], method: Method, recipe: Recipe, spec: DatasetSpec, missing: str
) -> dict[str, Any]:
  """One row of the table.

  Args:
    row: what was evaluated.
    facts: what is known of its training.
    method: what was trained.
    recipe: how.
    spec: the data.
    missing: what the training data lack, in words; 'complete' for nothing.
  """
  facts = dict(facts)
  if row.modality is not None:  # Each was selected by itself.
    for fact in ('best_step', 'validation_score'):
      facts[fact] = [values[spec.index(row.modality)] for values in facts[fact]]
  return {
    'title': row.title,
    'method': method.name,
    'modality': row.modality,
    'uses_oracle': list(method.uses_oracle),
    'source': method.source,
    'seeds': list(recipe.seeds),
    'selection': 'validation' if method.module is not None else 'none',
    'train_regime': _regime(method, missing, recipe),
    'protocols': row.protocols,
    'contribution': row.contribution,
    'native': row.native,
    **facts,
  }


def _regime(method: Method, missing: str, recipe: Recipe) -> str:
  """What a method was trained on, in words."""
  data = 'complete training data' if missing == 'complete' else f'training data incomplete: {missing}'
  injected = f'injected {describe(recipe_of(method, recipe).inject.missing())}' if method.inject else 'nothing injected'
  return f'{data}; {injected}'


def environment() -> dict[str, Any]:
  """Versions and devices, for the record."""
  import importlib.metadata as metadata

  packages = ('dream-jax', 'jax', 'jaxlib', 'flax', 'optax', 'orbax-checkpoint', 'numpy', 'tensorflow-cpu')
  versions = {}
  for name in packages:
    try:
      versions[name] = metadata.version(name)
    except metadata.PackageNotFoundError:
      versions[name] = 'not installed'
  devices = jax.devices()
  return {
    'versions': {'python': platform.python_version(), **versions},
    'devices': f'{len(devices)} x {devices[0].device_kind}',
    'platform': platform.platform(),
    'cores': os.cpu_count(),
  }
