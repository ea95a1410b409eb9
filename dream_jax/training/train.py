"""The loop: batches in, checkpoints and metrics out, the best parameters on validation at the end.

Data and model draw their randomness from the seed and the step's number alone, so a run that is killed continues bit
for bit from the step in its checkpoint. What is not finite is never saved or selected, see `divergence`.

Dimension letters: S seeds, K steps a call, B batch.
"""

import dataclasses
import time
from collections.abc import Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from dream_jax.config.recipe import Recipe
from dream_jax.data.prepare import Prepared
from dream_jax.errors import Diverged, UserError
from dream_jax.evaluation.metrics import primary_metric, sample_scores
from dream_jax.missingness.missing import Missing
from dream_jax.models.model import ORACLE_MASK, overlay
from dream_jax.models.registry import Method, build
from dream_jax.parallel import hosts
from dream_jax.parallel.mesh import fetch, put, sharding
from dream_jax.spec import DatasetSpec
from dream_jax.training import divergence
from dream_jax.training.feed import Feed
from dream_jax.training.programs import Programs, compile_programs, put_values
from dream_jax.training.runs import Runs
from dream_jax.training.step import Selection, TrainState
from dream_jax.workdir.checkpoints import Checkpoints, checkpoint_folder, of_method
from dream_jax.workdir.metrics_log import MetricsWriter, Progress

# A superbatch holds K steps of all seeds; more than this much memory a call gains nothing.
_CALL_BYTES = 48 * 2**20


@dataclasses.dataclass(frozen=True)
class Trained:
  """What training one method gives.

  Attributes:
    best: what validation selected, leading axis S; parameters are on the devices, the rest is on the host.
    peeked: what the test split would have selected; None unless asked for.
    compile_seconds: time spent compiling.
    train_seconds: time spent training and validating, compilation apart.
  """

  best: Selection
  peeked: Selection | None
  compile_seconds: float
  train_seconds: float


@dataclasses.dataclass(frozen=True)
class Schedule:
  """How many steps, and how they are cut.

  Attributes:
    num_steps: number of training steps.
    eval_every: steps between readings of the validation set; divides `num_steps`.
    per_call: steps of one compiled call; divides `eval_every`.
  """

  num_steps: int
  eval_every: int
  per_call: int


def make_schedule(recipe: Recipe, prepared: Prepared, num_runs: int) -> Schedule:
  """Steps of a run: `train.epochs` passes or `train.least_steps`, rounded up so that calls and readings come out even.

  The same for every method, so that all have one budget.
  """
  return schedule_for(recipe, prepared.spec, len(prepared.splits['train']), num_runs)


def schedule_for(recipe: Recipe, spec: DatasetSpec, num_samples: int, num_runs: int) -> Schedule:
  """As `make_schedule`, of a training set of this many samples."""
  t = recipe.train
  steps = max(t.least_steps, t.epochs * num_samples // t.batch_size)
  evals = min(t.num_evals, steps)
  floats = 2 * sum(int(np.prod(m.shape)) for m in spec.modalities)  # inputs, and inputs before the injection
  most = max(1, _CALL_BYTES // (4 * floats * t.batch_size * num_runs))
  between = -(-steps // evals)
  calls = -(-between // most)
  per_call = -(-between // calls)
  if per_call * calls * evals >= 2**31:  # Steps are counted in 32 bits.
    raise UserError(
      f'config.train.epochs is {t.epochs}: {per_call * calls * evals:,} steps; expected fewer than {2**31:,}: fewer'
      ' epochs or a larger train.batch_size'
    )
  return Schedule(per_call * calls * evals, per_call * calls, per_call)


class Trainer:
  """One method on its way from initialisation to selected parameters; `run` resumes from its checkpoints."""

  def __init__(
    self,
    method: Method,
    recipe: Recipe,
    feed: Feed,
    *,
    runs: Runs | None = None,
    programs: Programs | None = None,
    peek: bool = False,
  ):
    """Compiles, unless programs are given.

    Args:
      method: what to train.
      recipe: how.
      feed: on what.
      runs: what trains side by side; a run for each of the recipe's seeds if None.
      programs: those of a method with an equal `program_key`, compiled for this recipe and data of these sizes.
      peek: whether the test split selects, too, beside what validation selects and without touching it.
    """
    self.method, self.recipe, self.feed, self.prepared = method, recipe, feed, feed.prepared
    self.runs = Runs(recipe.seeds) if runs is None else runs
    self.peek = peek
    self.inject = recipe.inject.missing() if method.inject else Missing()
    self.schedule = make_schedule(recipe, self.prepared, len(self.runs))
    self.compile_seconds = 0.0
    if programs is None:
      s = self.schedule
      programs = compile_programs(
        method, recipe, self.prepared, num_steps=s.num_steps, per_call=s.per_call, runs=self.runs
      )
      self.compile_seconds = programs.compile_seconds
    self.programs = programs
    self.seeds = put(np.asarray(self.runs.seeds, np.uint32), sharding(programs.mesh, 'seed'))
    self.values = put_values(self.runs, programs.mesh)

  def batches(self, start_step: int) -> Iterator[dict[str, Any]]:
    """Superbatches from a step on, as the compiled call takes them."""
    s = self.schedule
    for batch in self.feed.batches(
      self.inject if self.method.inject else self.recipe.inject.missing(),
      # The same program makes batches of which nothing is removed: at rate 0.
      rates=self.runs.of('inject.rate') if self.method.inject else (0.0,) * len(self.runs),
      runs=self.runs,
      batch_size=self.recipe.train.batch_size,
      start_step=start_step,
      num_steps=s.num_steps - start_step,
      steps_per_call=s.per_call,
      with_clean=self.programs.with_clean,
    ):
      if 'mask' in self.method.uses_oracle:
        batch['inputs'] = {**batch['inputs'], ORACLE_MASK: batch['kept']}
      yield batch

  def first_state(self) -> TrainState:
    """The state before the first step."""
    state = self.programs.create(self.seeds)
    model = build(self.method, self.prepared.spec, self.recipe.model, self.recipe.losses)
    fitted = model.fitted(self.prepared.splits['train'].features, self.prepared.zero)
    if fitted:
      assert state.best is not None
      state = dataclasses.replace(
        state,
        params=overlay(state.params, fitted, _for_all_seeds),
        average=overlay(state.average, fitted, _for_all_seeds),
        best=dataclasses.replace(state.best, params=overlay(state.best.params, fitted, _for_all_seeds)),
      )
    return dataclasses.replace(state, peeked=jax.tree.map(jnp.copy, state.best)) if self.peek else state

  def advance(self, state: TrainState, batch: dict[str, Any]) -> tuple[TrainState, dict[str, jax.Array]]:
    """(state, terms) after one call on a superbatch; the state given is consumed. Selections wait outside."""
    moving = dataclasses.replace(state, best=None, peeked=None)
    moved, terms = self.programs.call(moving, batch, self.seeds, self.values)
    return dataclasses.replace(moved, best=state.best, peeked=state.peeked), terms

  def score(self, params: Any, split: str) -> np.ndarray:
    """Score of every seed on a split, [S], higher is better: the primary metric under the missingness of training.

    Regression is judged by minus the mean absolute error. Single modalities have a score each, [S, M].
    """
    spec, label = self.prepared.spec, self.prepared.splits[split].label
    higher = primary_metric(spec)[1]
    draws = self.recipe.train.validation_draws if self.method.inject else 1
    if split != 'validation':  # As many predictions as validation takes.
      draws = max(1, round(draws * len(self.prepared.splits['validation']) / len(label)))
    total = np.zeros((len(self.runs), *((spec.num_modalities,) if self.method.separate else ())))
    for draw in range(draws):
      outputs = self.programs.predictor.split(
        params,
        self.feed.inputs,
        split,
        missing=self.inject,
        seed=self.recipe.seed + draw,
        only=('unimodal_predictions' if self.method.separate else 'prediction',),
      )
      for i in range(len(self.runs)):
        total[i] += self._score(outputs, i, label)
    return (total if higher else -total).astype(np.float32) / draws

  def _score(self, outputs: dict[str, np.ndarray], seed: int, label: np.ndarray) -> np.ndarray:
    spec = self.prepared.spec
    if self.method.separate:
      each = np.moveaxis(outputs['unimodal_predictions'][seed], 1, 0)
      return np.array([sample_scores(spec, prediction, label).mean() for prediction in each])
    return sample_scores(spec, outputs['prediction'][seed], label).mean()

  def run(
    self, workdir: str, *, run: str | None = None, max_steps: int | None = None, may_diverge: bool = False
  ) -> Trained:
    """Trains to the end of the schedule, or continues from the latest checkpoint.

    Args:
      workdir: folder of the run.
      run: its identity, which checkpoints and log have to carry; None for none.
      max_steps: stop early, after a whole call; tests use it as a planned interruption.
      may_diverge: go on without the runs that diverge, whose score becomes minus infinity.

    Raises:
      Diverged: a run did, and was not allowed to.
      Preempted: a signal asked for it; the state is saved.
    """
    folder = checkpoint_folder(workdir, self.method.name)
    with hosts.listening(), Checkpoints(folder, run=of_method(run, self.method.name)) as checkpoints:
      abstract = self.programs.abstract_state
      found = checkpoints.restore_latest(dataclasses.replace(abstract, peeked=abstract.best) if self.peek else abstract)
      state = self.first_state() if found is None else found[1]
      step = 0 if found is None else found[0]
      if 0 < step < self.schedule.num_steps:
        print(f'{self.method.name}: continues at step {step} of {self.schedule.num_steps}', flush=True)
      start = time.perf_counter()
      with (
        MetricsWriter(
          workdir, self.method.name, run=run, resume_step=step if found else -1, enabled=hosts.is_main()
        ) as writer,
        Progress(
          self.schedule.num_steps,
          label=self.method.name,
          start=step,
          examples_per_step=self.recipe.train.batch_size * len(self.runs),
          enabled=hosts.is_main(),
        ) as progress,
      ):
        loop = _Loop(self, checkpoints, writer, progress, may_diverge)
        try:
          state = loop.run(state, step, max_steps)
        except Diverged:
          checkpoints.wait()  # All processes are here: what is under way can be finished.
          raise
      assert state.best is not None
      if int(state.step) == self.schedule.num_steps and not checkpoints.has_best(self.schedule.num_steps):
        checkpoints.save_best(self.schedule.num_steps, state.best.params)
      seconds = time.perf_counter() - start
    return Trained(_chosen(state.best), _chosen(state.peeked), self.compile_seconds, seconds)

  def select(self, selection: Selection | None, state: TrainState, score: np.ndarray) -> Selection:
    """The selection after a reading of a split; the one given is consumed."""
    where = sharding(self.programs.mesh, 'seed')
    return self.programs.select(selection, state.average, state.step, put(score, where))


class _Loop:
  """Calls, readings of the validation set and checkpoints until the schedule ends."""

  def __init__(
    self, trainer: Trainer, checkpoints: Checkpoints, writer: MetricsWriter, progress: Progress, may_diverge: bool
  ):
    self._trainer, self._checkpoints, self._writer, self._progress = trainer, checkpoints, writer, progress
    self._may_diverge = may_diverge
    self._pending: list[tuple[int, dict[str, jax.Array], jax.Array]] = []

  def run(self, state: TrainState, step: int, max_steps: int | None) -> TrainState:
    """The state at the end, which is saved."""
    trainer, s = self._trainer, self._trainer.schedule
    end = s.num_steps if max_steps is None else min(max_steps, s.num_steps)
    state = self._check_start(state, step)
    pace = _Pace(trainer.recipe.train.checkpoint_seconds)
    stopping = False
    for batch in trainer.batches(step) if step < end else ():
      state, terms = trainer.advance(state, batch)
      step += s.per_call
      # Metrics of a call are fetched after the next one is under way, so that reading them never stalls the device.
      state, note = self._settle(state)
      self._pending.append((step, terms, trainer.programs.finite(state.average)))
      self._progress.update(step, note)
      if step % s.eval_every == 0:
        state = self._read(state, step)
      if pace.due() and step < end:
        state = self._save(state, step)
        pace = _Pace(trainer.recipe.train.checkpoint_seconds)
      # After the reading: a run that continues from this step does not make it again.
      stopping = hosts.stopping()
      if stopping or step >= end:
        break
    state = self._save(state, step)
    if stopping or hosts.stopping():
      self._checkpoints.wait()
      raise hosts.stopped(f'{trainer.method.name} saved at step {step} of {s.num_steps}')
    return state

  def _check_start(self, state: TrainState, step: int) -> TrainState:
    """Looks at a state before the first call; an older program saved whatever it had."""
    values = {'parameters': _nan_unless(fetch(self._trainer.programs.finite(state.average)))}
    assert state.best is not None
    if step >= self._trainer.schedule.eval_every:
      values['validation_score'] = fetch(state.best.score)
    return self._check(state, f'before step {step + 1}', values)

  def _read(self, state: TrainState, step: int) -> TrainState:
    """The state after a reading of the validation set."""
    trainer = self._trainer
    state, _ = self._settle(state)
    score = trainer.score(state.average, 'validation')
    self._writer.write(step, {'validation_score': score.reshape(len(score), -1).mean(1)})
    best = trainer.select(state.best, state, score)
    state = dataclasses.replace(state, best=best)
    # A reading that is not finite is passed over, as long as there was another.
    state = self._check(state, f'at step {step}', {'validation_score': fetch(best.score)})
    if trainer.peek:
      peeked = trainer.select(state.peeked, state, trainer.score(state.average, 'test'))
      state = dataclasses.replace(state, peeked=peeked)
    self._progress.update(step, f'validation {score.mean():.4f}')
    return state

  def _save(self, state: TrainState, step: int) -> TrainState:
    """The state, saved unless this step is already."""
    state, _ = self._settle(state)
    self._writer.flush()
    if step > (self._checkpoints.latest_step() or 0):
      self._checkpoints.save(step, state)
    return state

  def _settle(self, state: TrainState) -> tuple[TrainState, str]:
    """(state, what the progress line says) once the calls before are known to have gone well."""
    pending, note = self._pending, ''
    self._pending = []
    for step, terms, finite in pending:
      values, finite = fetch((terms, finite))
      self._writer.write(step, values)
      when = f'in steps {step - self._trainer.schedule.per_call + 1} to {step}'
      state = self._check(state, when, {**values, 'parameters': _nan_unless(finite)})
      note = f'loss {values["loss"].mean():.4f}'
    return state, note

  def _check(self, state: TrainState, when: str, values: dict[str, np.ndarray]) -> TrainState:
    """The state without the selections of runs that diverged.

    Raises:
      Diverged: there are some, and all results are wanted.
    """
    found = divergence.not_finite(values)
    if not found:
      return state
    trainer = self._trainer
    if not self._may_diverge:
      of = f'{when} of {trainer.schedule.num_steps}'
      raise divergence.refusal(trainer.method.name, of, found, trainer.runs, trainer.recipe)
    assert state.best is not None
    return dataclasses.replace(state, best=divergence.forget(state.best, np.any(list(found.values()), axis=0)))


class _Pace:
  """When the next checkpoint is due: the clock of process 0 decides, and the others ask it as seldom as they can."""

  def __init__(self, seconds: float):
    self._seconds, self._start = seconds, time.monotonic()
    self._calls, self._ask_at = 0, 1

  def due(self) -> bool:
    """Whether to save after this call. All processes have to ask after every call."""
    self._calls += 1
    if hosts.several() and self._calls < self._ask_at:  # Asking waits for the devices.
      return False
    due, ahead = hosts.agree(self._decide)
    self._ask_at = self._calls + ahead
    return due

  def _decide(self) -> tuple[bool, int]:
    """(whether it is due, after how many calls to ask again): half of those that fit, since calls may become slower."""
    passed, done = time.monotonic() - self._start, self._calls - 1  # The last one has only been started.
    ahead = done * (self._seconds - passed) / (2 * passed) if passed > 0 else 0.0
    return passed >= self._seconds, int(min(max(ahead, 1.0), 1e6))


def _nan_unless(finite: np.ndarray) -> np.ndarray:
  """[S], NaN for the runs whose parameters are not finite; once they are not, their average never is again."""
  return np.where(finite, 0.0, np.nan)


def _for_all_seeds(fitted: Any, leaf: jax.Array) -> jax.Array:
  return put(np.broadcast_to(fitted, leaf.shape), leaf.sharding)  # pyright: ignore[reportArgumentType]


def _chosen(selection: Selection | None) -> Any:
  """A selection whose scores and steps are on the host."""
  return selection and dataclasses.replace(selection, score=fetch(selection.score), step=fetch(selection.step))
