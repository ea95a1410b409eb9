"""The loop: batches in, checkpoints and metrics out, the best parameters on validation at the end.

Data and model draw their randomness from the seed and the step's number alone, so a run that is killed continues bit
for bit from the step in its checkpoint.

Dimension letters: S seeds, K steps a call, B batch.
"""

import dataclasses
import time
from collections.abc import Iterator
from typing import Any

import jax
import numpy as np

from dream_jax.checkpoints import Checkpoints
from dream_jax.data.missing import Missing
from dream_jax.data.pipeline import device_prefetch, train_batches
from dream_jax.data.prepare import Prepared
from dream_jax.metrics import primary_metric, sample_scores
from dream_jax.models.baselines.concat import ORACLE_MASK
from dream_jax.models.registry import Method
from dream_jax.parallel.mesh import put, sharding
from dream_jax.predict import label_scale
from dream_jax.programs import Programs, compile_programs
from dream_jax.recipe import Recipe
from dream_jax.step import TrainState
from dream_jax.writers import MetricsWriter, Progress

# A superbatch holds K steps of all seeds; more than this much memory a call gains nothing.
_CALL_BYTES = 48 * 2**20


@dataclasses.dataclass(frozen=True)
class Trained:
  """What training one method gives.

  Attributes:
    params: selected parameters, leading axis S, on the host.
    best_step: [S], the step they are from; [S, M] for single modalities, each selected by itself.
    best_score: of the same shape, their validation score.
    compile_seconds: time spent compiling.
    train_seconds: time spent training and validating, compilation apart.
  """

  params: Any
  best_step: np.ndarray
  best_score: np.ndarray
  compile_seconds: float
  train_seconds: float


@dataclasses.dataclass(frozen=True)
class Schedule:
  """How many steps, and how they are cut.

  Attributes:
    num_steps: of training.
    eval_every: steps between readings of the validation set; divides `num_steps`.
    per_call: steps of one compiled call; divides `eval_every`.
  """

  num_steps: int
  eval_every: int
  per_call: int


def make_schedule(recipe: Recipe, prepared: Prepared) -> Schedule:
  """Steps of a run: `train.epochs` passes, rounded up so that calls and readings of the validation set come out even.

  The same for every method, so that all have one budget.
  """
  t = recipe.train
  steps = max(1, t.epochs * len(prepared.splits['train']) // t.batch_size)
  evals = min(t.num_evals, steps)
  floats = 2 * sum(int(np.prod(m.shape)) for m in prepared.spec.modalities)  # inputs, and inputs before the injection
  most = max(1, _CALL_BYTES // (4 * floats * t.batch_size * recipe.num_seeds))
  between = -(-steps // evals)
  calls = -(-between // most)
  per_call = -(-between // calls)
  return Schedule(per_call * calls * evals, per_call * calls, per_call)


class Trainer:
  """One method on its way from initialisation to selected parameters; `run` resumes from its checkpoints."""

  def __init__(self, method: Method, recipe: Recipe, prepared: Prepared, programs: Programs | None = None):
    """Compiles, unless programs are given.

    Args:
      method: what to train.
      recipe: how.
      prepared: on what.
      programs: of a method with an equal `program_key`, compiled for this recipe and data.
    """
    self.method, self.recipe, self.prepared = method, recipe, prepared
    self.inject = recipe.inject.missing() if method.inject else Missing()
    self.schedule = make_schedule(recipe, prepared)
    self.compile_seconds = 0.0
    if programs is None:
      s = self.schedule
      programs = compile_programs(method, recipe, prepared, num_steps=s.num_steps, per_call=s.per_call)
      self.compile_seconds = programs.compile_seconds
    self.programs = programs
    self._scale = label_scale(prepared)
    self.seeds = put(np.asarray(recipe.seeds, np.uint32), sharding(programs.mesh, 'seed'))

  def batches(self, start_step: int) -> Iterator[dict[str, Any]]:
    """Superbatches of the pipeline, from a step on."""
    return train_batches(
      self.prepared,
      inject=self.inject,
      batch_size=self.recipe.train.batch_size,
      seeds=self.recipe.seeds,
      start_step=start_step,
      num_steps=self.schedule.num_steps - start_step,
      steps_per_call=self.schedule.per_call,
      with_clean=self.programs.with_clean,
      process_index=jax.process_index(),
      process_count=jax.process_count(),
    )

  def put_batch(self, batch: dict[str, Any]) -> dict[str, Any]:
    """A superbatch of the pipeline as the compiled call takes it."""
    batch = {**batch, 'label': self._scale.standardise(batch['label'])}
    if 'mask' in self.method.uses_oracle:
      batch['inputs'] = {**batch['inputs'], ORACLE_MASK: batch['kept']}
    return put(batch, sharding(self.programs.mesh, None, 'seed', 'data'))

  def validate(self, params: Any) -> np.ndarray:
    """Validation score of every seed, [S], higher is better: the primary metric under the missingness of training.

    Regression is judged by minus the mean absolute error. Single modalities have a score each, [S, M].
    """
    spec, split = self.prepared.spec, self.prepared.splits['validation']
    higher = primary_metric(spec)[1]
    draws = self.recipe.train.validation_draws if self.method.inject else 1
    total = np.zeros(self.programs.abstract_state.best_score.shape)
    for draw in range(draws):
      outputs = self.programs.predictor.split(
        params, split, missing=self.inject, seed=self.recipe.seed + draw, only=self._selection_output()
      )
      for i in range(self.recipe.num_seeds):
        total[i] += self._score(outputs, i, split.label)
    return (total if higher else -total).astype(np.float32) / draws

  def _selection_output(self) -> tuple[str, ...]:
    return ('unimodal_predictions',) if self.method.model == 'unimodal' else ('prediction',)

  def _score(self, outputs: dict[str, np.ndarray], seed: int, label: np.ndarray) -> np.ndarray:
    spec = self.prepared.spec
    if self.method.model == 'unimodal':
      each = np.moveaxis(outputs['unimodal_predictions'][seed], 1, 0)
      return np.array([sample_scores(spec, prediction, label).mean() for prediction in each])
    return sample_scores(spec, outputs['prediction'][seed], label).mean()

  def run(self, workdir: str, *, max_steps: int | None = None) -> Trained:
    """Trains to the end of the schedule, or continues from the latest checkpoint.

    Args:
      workdir: folder of the run.
      max_steps: stop early, after a whole call; tests use it as a planned interruption.
    """
    directory = f'{workdir}/checkpoints/{self.method.name}'
    main_process = jax.process_index() == 0
    with Checkpoints(directory) as checkpoints:
      found = checkpoints.restore_latest(self.programs.abstract_state)
      state = self.programs.create(self.seeds) if found is None else found[1]
      step = 0 if found is None else found[0]
      start = time.perf_counter()
      with (
        MetricsWriter(workdir, self.method.name, resume_step=step if found else -1, enabled=main_process) as writer,
        Progress(
          self.schedule.num_steps,
          label=self.method.name,
          start=step,
          examples_per_step=self.recipe.train.batch_size * self.recipe.num_seeds,
          enabled=main_process,
        ) as progress,
      ):
        state = self._loop(state, step, checkpoints, writer, progress, max_steps)
      best_step, best_score = np.asarray(state.best_step), np.asarray(state.best_score)
      params = jax.tree.map(np.asarray, state.best_params)
      if int(state.step) == self.schedule.num_steps != checkpoints.best_step():
        checkpoints.save_best(self.schedule.num_steps, state.best_params)
      seconds = time.perf_counter() - start
    return Trained(params, best_step, best_score, self.compile_seconds, seconds)

  def _loop(self, state, step, checkpoints, writer, progress, max_steps) -> TrainState:
    """Calls, readings of the validation set and checkpoints until the schedule ends."""
    s = self.schedule
    end = s.num_steps if max_steps is None else min(max_steps, s.num_steps)
    saved = time.monotonic()
    pending: list[tuple[int, dict[str, jax.Array]]] = []
    batches = device_prefetch(self.batches(step), self.put_batch) if step < end else iter(())
    for batch in batches:
      state, terms = self.programs.call(state, batch, self.seeds)
      step += s.per_call
      # Metrics of a call are fetched after the next one is under way, so that reading them never stalls the device.
      note = self._write(writer, pending)
      pending.append((step, terms))
      progress.update(step, note)
      if step % s.eval_every == 0:
        score = self.validate(state.average)
        self._write(writer, pending)
        writer.write(step, {'validation_score': score.reshape(len(score), -1).mean(1)})
        state = self.programs.select(state, put(score, sharding(self.programs.mesh, 'seed')))
        progress.update(step, f'validation {score.mean():.4f}')
        if step < end and time.monotonic() - saved >= self.recipe.train.checkpoint_seconds:
          writer.flush()
          checkpoints.save(step, state)
          saved = time.monotonic()
      if step >= end:
        break
    self._write(writer, pending)
    writer.flush()
    if step > (checkpoints.latest_step() or 0):
      checkpoints.save(step, state)
    return state

  def _write(self, writer: MetricsWriter, pending: list[tuple[int, dict[str, jax.Array]]]) -> str:
    note = ''
    for step, terms in pending:
      values = {name: np.asarray(value) for name, value in terms.items()}
      writer.write(step, values)
      note = f'loss {values["loss"].mean():.4f}'
    pending.clear()
    return note
