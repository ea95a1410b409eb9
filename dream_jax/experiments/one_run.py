"""One run: a method trained or resumed in its folder, evaluated, and written down; a search of settings likewise."""

import dataclasses
import time
from collections.abc import Mapping
from typing import Any

import numpy as np

from dream_jax.config.recipe import Recipe, recipe_of
from dream_jax.errors import UserError
from dream_jax.evaluation.evaluate import ConstantPredictor, Row, evaluate_method
from dream_jax.evaluation.modality_values import value_modalities
from dream_jax.experiments.units import Plan
from dream_jax.experiments.workbench import Workbench
from dream_jax.models.registry import Method
from dream_jax.parallel import hosts
from dream_jax.training.gradient_facts import gradient_facts
from dream_jax.training.runs import Runs
from dream_jax.training.train import Trained, Trainer
from dream_jax.workdir.checkpoints import selected

_SEARCH_SEED = 20260  # Of the points of a random search: the same for all methods.

Found = tuple[dict[str, Any], list[Row]]


def train(method: Method, bench: Workbench, plan: Plan, folder: str, key: str, chosen: Mapping[str, float]) -> Found:
  """(facts, rows) of a method: trained to its end, evaluated, its modalities valued where the plan asks for that."""
  recipe = bench.recipe
  if method.module is None:
    facts: dict[str, Any] = {'num_params': 0, 'train_seconds': 0.0, 'compile_seconds': 0.0}
    predictor, params, peeked = ConstantPredictor(bench.prepared, recipe.num_seeds), None, None
  else:
    print(f'{method.name}: compiling', flush=True)
    runs = Runs(recipe.seeds, tuple((f, (v,) * recipe.num_seeds) for f, v in chosen.items()))
    trainer = bench.trainer(method, runs, peek=plan.peek)
    trained = trainer.run(folder, run=key)
    facts = {**_facts(trainer, trained), 'settings': dict(chosen)}
    if hosts.is_main() and not method.separate:  # Gradients of separate models compete for nothing.
      facts |= gradient_facts(folder, trainer, key)
    predictor, params = trainer.programs.predictor, trained.best.params
    peeked = None if trained.peeked is None else trained.peeked.params
  start = time.perf_counter()
  rows = _evaluated(method, predictor, params, bench, plan)
  if peeked is not None:
    other = evaluate_method(method, predictor, peeked, bench.feed.inputs, recipe.protocols, **reading(method, recipe))
    rows = [
      dataclasses.replace(row, test_selected={'protocols': p.protocols}) for row, p in zip(rows, other, strict=True)
    ]
  return {**facts, 'evaluate_seconds': time.perf_counter() - start}, rows


def evaluate_again(method: Method, bench: Workbench, plan: Plan, folder: str, key: str) -> list[Row]:
  """The rows of a finished run as the plan asks for them now, from its selected parameters.

  Raises:
    UserError: these are not there, or they are damaged or of another run.
  """
  if method.module is None:
    return _evaluated(method, ConstantPredictor(bench.prepared, bench.recipe.num_seeds), None, bench, plan)
  programs = bench.trainer(method).programs
  found = selected(folder, method.name, key, programs.abstract_state.params)
  return _evaluated(method, programs.predictor, found, bench, plan)


def as_asked(rows: list[Row], method: Method, plan: Plan, recipe: Recipe) -> bool:
  """Whether a finished run was evaluated under the protocols, and valued, as is asked for now."""
  protocols = list(dict.fromkeys(('complete', *recipe.protocols)))
  valued = rows[0].valuation is not None or not plan.valuation or method.separate or method.module is None
  return valued and all(list(row.protocols) == protocols for row in rows)


def search(method: Method, bench: Workbench, plan: Plan, folder: str, key: str) -> dict[str, Any]:
  """Trains all points of a random search side by side; facts with the one that validation prefers.

  Raises:
    UserError: all of them diverged.
  """
  wanted, recipe = plan.search, bench.recipe
  points = draw_points(recipe, plan)
  seeds = tuple(recipe.seed + s for _ in range(wanted.points) for s in range(wanted.seeds))
  values = tuple((field, tuple(p[field] for p in points for _ in range(wanted.seeds))) for field in points[0])
  trainer = bench.trainer(method, Runs(seeds, values))
  trained = trainer.run(folder, run=key, may_diverge=True)
  scores = trained.best.score.reshape(wanted.points, -1).mean(1)
  if not np.isfinite(scores).any():
    raise UserError(
      f'{method.name}: all {wanted.points} points of the search diverged; expected settings that can be trained with:'
      ' lower config.optimizer.learning_rate and the ranges of config.study.search.fields'
    )
  best = int(np.argmax(np.where(np.isfinite(scores), scores, -np.inf)))
  return {
    'points': points,
    'scores': scores.tolist(),
    'chosen': points[best],
    'train_seconds': trained.train_seconds,
    'compile_seconds': trained.compile_seconds,
  }


def draw_points(recipe: Recipe, plan: Plan) -> list[dict[str, float]]:
  """Settings of every point of the search: the recipe's own first, the others drawn, the same for every method."""
  rng, own = np.random.default_rng(_SEARCH_SEED), {}
  for field, *_ in plan.search.fields:
    group, _, name = field.partition('.')
    own[field] = float(getattr(getattr(recipe, group), name))
  points = [own]
  for _ in range(plan.search.points - 1):
    point = {}
    for field, scale, low, high in plan.search.fields:
      share = rng.random()
      value = low * (high / low) ** share if scale == 'log' else low + share * (high - low)
      point[field] = float(np.float32(f'{value:.4g}'))
    points.append(point)
  return points


def _evaluated(method: Method, predictor: Any, params: Any, bench: Workbench, plan: Plan) -> list[Row]:
  recipe, inputs = bench.recipe, bench.feed.inputs
  rows = evaluate_method(method, predictor, params, inputs, recipe.protocols, **reading(method, recipe))
  if plan.valuation and method.module is not None and not method.separate:
    constant = ConstantPredictor(bench.prepared, recipe.num_seeds).prediction
    value = value_modalities(predictor, params, inputs, 'test', constant=constant, seed=recipe.seed)
    rows[0] = dataclasses.replace(rows[0], valuation=value)
  return rows


def reading(method: Method, recipe: Recipe) -> dict[str, Any]:
  """How the splits are read for a method: keywords of `evaluate_method`."""
  injected = recipe_of(method, recipe).inject.missing() if method.inject else None
  return {'seed': recipe.seed, 'trained_under': injected, 'draws': recipe.train.validation_draws if injected else 1}


def _facts(trainer: Trainer, trained: Trained) -> dict[str, Any]:
  """What `results.json` says of a training."""
  flops, t = trainer.programs.step_flops, trainer.schedule
  return {
    'num_params': trainer.programs.num_params,
    'train_flops': None if flops is None else flops * t.num_steps,
    'train_seconds': trained.train_seconds,
    'compile_seconds': trained.compile_seconds,
    'best_step': trained.best.step.tolist(),
    'validation_score': trained.best.score.tolist(),
  }
