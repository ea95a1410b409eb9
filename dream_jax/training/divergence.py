"""Runs that diverge: their numbers stop being finite, and nothing they find from there on is a result.

Whoever trains for results stops at once, with all its seeds: a table of those that survived would flatter the method.
A search of settings goes on without the runs that diverged: that a setting diverges is what a search finds out.

Dimension letters: S runs, M modalities.
"""

import dataclasses
from collections.abc import Mapping
from typing import Any

import numpy as np

from dream_jax.config.recipe import Recipe
from dream_jax.errors import Diverged
from dream_jax.parallel.mesh import fetch, put
from dream_jax.training.runs import Runs
from dream_jax.training.step import Selection


def not_finite(values: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
  """Name -> which runs it is not finite for, bool [S], of the values [S] or [S, M] that are not all finite."""
  flat = {name: np.reshape(value, (len(value), -1)) for name, value in values.items()}
  found = {name: np.logical_not(np.isfinite(x).all(axis=1)) for name, x in flat.items()}
  return {name: runs for name, runs in found.items() if runs.any()}


def forget(selection: Selection, diverged: np.ndarray) -> Selection:
  """The selection with the worst score for the runs that diverged, bool [S], of which nothing more is selected.

  The parameters stay: they were selected while they were finite.
  """
  score, step = fetch(selection.score), fetch(selection.step)
  gone = np.broadcast_to(diverged.reshape(-1, *(1,) * (score.ndim - 1)), score.shape)
  return dataclasses.replace(
    selection,
    score=put(np.where(gone, np.float32(-np.inf), score), selection.score.sharding),  # pyright: ignore[reportArgumentType]
    step=put(np.where(gone, np.int32(-1), step), selection.step.sharding),  # pyright: ignore[reportArgumentType]
  )


def refusal(method: str, when: str, found: Mapping[str, np.ndarray], runs: Runs, recipe: Recipe) -> Diverged:
  """What the user is told: who diverged, when, what of it, and what to do.

  Args:
    method: name of the method.
    when: the steps, in words.
    found: see `not_finite`.
    runs: what trains side by side.
    recipe: how.
  """
  places = np.flatnonzero(np.any(list(found.values()), axis=0))
  seeds = [str(runs.seeds[i]) for i in places]
  rates = runs.of('optimizer.learning_rate') or (recipe.optimizer.learning_rate,) * len(runs)
  return Diverged(
    f'{method} diverged {when}: not finite for {"seed" if len(seeds) == 1 else "seeds"} {", ".join(seeds)}'
    f' ({len(seeds)} of {len(runs)}): {", ".join(_names(found))}; earlier checkpoints stay, nothing later is saved;'
    f' lower config.optimizer.learning_rate ({max(rates[i] for i in places):.3g} now) in another --workdir; where that'
    ' does not help, look for values of another scale in the data with python -m dream_jax.datacheck'
  )


def _names(found: Mapping[str, Any]) -> list[str]:
  """The names as `metrics.jsonl` has them, losses first; the norm of all gradients speaks for those of encoders."""
  whole = 'gradient_norm' in found
  names = [name for name in found if not (whole and name.startswith('gradient_norm/'))]
  return sorted(names, key=lambda name: (name == 'parameters', name.startswith('gradient_norm'), name != 'loss', name))
