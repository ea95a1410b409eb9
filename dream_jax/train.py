"""The loop and the step: all seeds of one method train in one compiled program.

A call runs K steps: `lax.scan` over steps, `vmap` over seeds. Whatever is random in a step is a pure function of the seed
and the step's number, in the data (`data.sampler`) as in the model, so a run that is killed continues bit for bit from
the step in its checkpoint.

Dimension letters: S seeds, K steps a call, B batch.
"""

import dataclasses
import time
from collections.abc import Callable
from typing import Any

import flax.struct
import jax
import jax.numpy as jnp
import numpy as np
import optax

from dream_jax import losses
from dream_jax.checkpoints import Checkpoints
from dream_jax.data.missing import Missing
from dream_jax.data.pipeline import device_prefetch, train_batches
from dream_jax.data.prepare import Prepared
from dream_jax.metrics import primary_metric, sample_scores
from dream_jax.models.baselines.concat import ORACLE_MASK
from dream_jax.models.registry import Method, build
from dream_jax.parallel.mesh import check_divides, make_mesh, put, sharding
from dream_jax.predict import Predictor, label_scale
from dream_jax.recipe import OptimizerSettings, Recipe
from dream_jax.writers import MetricsWriter, Progress

# A superbatch holds K steps of all seeds; more than this much memory a call gains nothing.
_CALL_BYTES = 48 * 2**20
_INIT_STREAM, _STEP_STREAM = 0, 1


@flax.struct.dataclass
class TrainState:
  """All that a checkpoint holds; leaves have a leading axis S, but for the step.

  Attributes:
    step: int32 [], steps done.
    params: parameters.
    average: running average of the parameters: what is validated, selected and used.
    opt_state: state of the optimizer.
    best_params: parameters of the best validation score so far.
    best_score: float32 [S], higher is better.
    best_step: int32 [S], the step it was reached at.
  """

  step: jax.Array
  params: Any
  average: Any
  opt_state: Any
  best_params: Any
  best_score: jax.Array
  best_step: jax.Array


@dataclasses.dataclass(frozen=True)
class Trained:
  """What training one method gives.

  Attributes:
    params: selected parameters, leading axis S, on the host.
    best_step: [S], the step they are from.
    best_score: [S], their validation score.
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


def create_optimizer(settings: OptimizerSettings, num_steps: int) -> optax.GradientTransformation:
  """AdamW after clipping, with linear warm-up and cosine decay to zero over `num_steps`."""
  warmup = int(settings.warmup_fraction * num_steps)
  rate = optax.warmup_cosine_decay_schedule(0.0, settings.learning_rate, warmup, max(num_steps, warmup + 1))
  return optax.chain(
    optax.clip_by_global_norm(settings.clip_norm), optax.adamw(rate, weight_decay=settings.weight_decay)
  )


def seed_key(seed: jax.Array, stream: int) -> jax.Array:
  """Key of one named stream of randomness of one seed."""
  return jax.random.fold_in(jax.random.key(seed), stream)


def create_state(
  model: Any, optimizer: optax.GradientTransformation, inputs: dict[str, jax.Array], seeds: jax.Array
) -> TrainState:
  """The state before the first step: every seed with an initialisation of its own.

  Args:
    model: Flax module.
    optimizer: whose state is made.
    inputs: any batch of inputs, for shapes.
    seeds: uint32 [S].
  """

  def params_of(seed):
    return model.init({'params': seed_key(seed, _INIT_STREAM)}, inputs, train=False)['params']

  params = jax.vmap(params_of)(seeds)
  return TrainState(
    step=jnp.zeros((), jnp.int32),
    params=params,
    average=params,
    opt_state=jax.vmap(optimizer.init)(params),
    best_params=params,
    best_score=jnp.full(seeds.shape, -jnp.inf, jnp.float32),
    best_step=jnp.zeros(seeds.shape, jnp.int32),
  )


def train_call(
  loss: Callable[..., Any],
  optimizer: optax.GradientTransformation,
  decay: float,
  state: TrainState,
  batches: dict[str, Any],
  seeds: jax.Array,
) -> tuple[TrainState, dict[str, jax.Array]]:
  """K steps of all seeds: (state, mean of each loss term and of the gradient norm over the K steps, [S]).

  Args:
    loss: (params, batch, rng) -> (total, terms).
    optimizer: applied to each seed by itself.
    decay: of the running average of parameters, reached after a warm-up (Tarvainen & Valpola, 2017); 0 averages nothing.
    state: leading axis S.
    batches: leading axes [K, S, B].
    seeds: uint32 [S].
  """

  def one_seed(params, opt_state, batch, seed, step):
    rng = jax.random.fold_in(seed_key(seed, _STEP_STREAM), step)
    (total, terms), grads = jax.value_and_grad(loss, has_aux=True)(params, batch, rng)
    updates, opt_state = optimizer.update(grads, opt_state, params)
    terms = {**terms, 'loss': total, 'gradient_norm': optax.global_norm(grads)}
    return optax.apply_updates(params, updates), opt_state, terms

  def one_step(state, batch):
    params, opt_state, terms = jax.vmap(one_seed, in_axes=(0, 0, 0, 0, None))(
      state.params, state.opt_state, batch, seeds, state.step
    )
    done = state.step.astype(jnp.float32)
    keep = jnp.minimum(decay, (1.0 + done) / (10.0 + done))
    average = jax.tree.map(lambda a, p: keep.astype(p.dtype) * a + (1.0 - keep).astype(p.dtype) * p, state.average, params)
    return state.replace(params=params, average=average, opt_state=opt_state, step=state.step + 1), terms

  state, terms = jax.lax.scan(one_step, state, batches)
  return state, jax.tree.map(lambda x: x.mean(0), terms)


def select_best(state: TrainState, score: jax.Array) -> TrainState:
  """The state after a reading of the validation set: each seed keeps its best parameters, the later of equals.

  Args:
    state: leading axis S.
    score: float32 [S], higher is better; NaN never wins.
  """
  better = score >= state.best_score

  def keep(new, old):
    return jnp.where(better.reshape(better.shape + (1,) * (new.ndim - 1)), new, old)

  return state.replace(
    best_params=jax.tree.map(keep, state.average, state.best_params),
    best_score=jnp.where(better, score, state.best_score),
    best_step=jnp.where(better, state.step, state.best_step),
  )


def compiler_options() -> dict[str, Any]:
  """Options of every compilation.

  On CPU the lower LLVM level compiles about three times faster, and the vectorised steps it makes run as fast or
  faster (`benchmarks/compile_options.py`).
  """
  return {'xla_backend_optimization_level': 1} if jax.default_backend() == 'cpu' else {}


class Trainer:
  """Compiled programs and shapes of one method; `run` trains it, resuming from its checkpoints."""

  def __init__(self, method: Method, recipe: Recipe, prepared: Prepared):
    """Compiles; see `compile_seconds`.

    Args:
      method: what to train.
      recipe: how.
      prepared: on what.
    """
    self.method, self.recipe, self.prepared = method, recipe, prepared
    self.inject = recipe.inject.missing() if method.inject else Missing()
    self.model = build(method, prepared.spec, recipe.model)
    self.scale = label_scale(prepared)
    self.loss = losses.method_loss(method, self.model, recipe.losses)
    self.with_clean = losses.needs_clean(method, self.model)
    self.schedule = make_schedule(recipe, prepared)
    self.mesh = make_mesh(recipe.parallel.seed, recipe.parallel.data)
    check_divides(self.mesh, num_seeds=recipe.num_seeds, batch_size=recipe.train.batch_size)
    self._seeds = put(np.asarray(recipe.seeds, np.uint32), sharding(self.mesh, 'seed'))
    self._compile()

  def _compile(self) -> None:
    start = time.perf_counter()
    optimizer = create_optimizer(self.recipe.optimizer, self.schedule.num_steps)
    first = self._put(next(self._batches(0)))
    sample = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape[2:], x.dtype), first['inputs'])
    sample = jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), sample)
    by_seed, alone = sharding(self.mesh, 'seed'), sharding(self.mesh)
    abstract = jax.eval_shape(lambda s: create_state(self.model, optimizer, sample, s), self._seeds)
    where = jax.tree.map(lambda x: by_seed, abstract).replace(step=alone)
    options = compiler_options()
    make = jax.jit(lambda s: create_state(self.model, optimizer, sample, s), out_shardings=where)
    self._create = make.lower(self._seeds).compile(compiler_options=options)
    self.abstract_state = jax.tree.map(lambda x, s: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=s), abstract, where)
    call = jax.jit(
      lambda state, batches, seeds: train_call(
        self.loss, optimizer, self.recipe.optimizer.average_decay, state, batches, seeds
      ),
      donate_argnums=0,
      out_shardings=(where, alone),
    )
    self._call = call.lower(self.abstract_state, first, self._seeds).compile(compiler_options=options)
    select = jax.jit(select_best, donate_argnums=0, out_shardings=where)
    score = jax.ShapeDtypeStruct(self._seeds.shape, jnp.float32, sharding=by_seed)
    self._select = select.lower(self.abstract_state, score).compile(compiler_options=options)
    self.predictor = Predictor(
      self.model,
      self.mesh,
      self.abstract_state.params,
      self.prepared,
      batch_size=self.recipe.train.eval_batch_size,
      compiler_options=options,
      oracle='mask' in self.method.uses_oracle,
    )
    self.num_params = sum(x.size for x in jax.tree.leaves(abstract.params)) // self.recipe.num_seeds
    self.compile_seconds = time.perf_counter() - start

  def _batches(self, start_step: int):
    return train_batches(
      self.prepared,
      inject=self.inject,
      batch_size=self.recipe.train.batch_size,
      seeds=self.recipe.seeds,
      start_step=start_step,
      num_steps=self.schedule.num_steps - start_step,
      steps_per_call=self.schedule.per_call,
      with_clean=self.with_clean,
      process_index=jax.process_index(),
      process_count=jax.process_count(),
    )

  def _put(self, batch: dict[str, Any]) -> dict[str, Any]:
    batch = {**batch, 'label': self.scale.standardise(batch['label'])}
    if 'mask' in self.method.uses_oracle:
      batch['inputs'] = {**batch['inputs'], ORACLE_MASK: batch['kept']}
    return put(batch, sharding(self.mesh, None, 'seed', 'data'))

  def validate(self, params: Any) -> np.ndarray:
    """Validation score of every seed, [S], higher is better: the primary metric under the missingness of training.

    Regression is judged by minus the mean absolute error.
    """
    spec, split = self.prepared.spec, self.prepared.splits['validation']
    higher = primary_metric(spec)[1]
    draws = self.recipe.train.validation_draws if self.method.inject else 1
    total = np.zeros(self.recipe.num_seeds)
    for draw in range(draws):
      outputs = self.predictor.split(
        params, split, missing=self.inject, seed=self.recipe.seed + draw, only=self._selection_output()
      )
      for i in range(self.recipe.num_seeds):
        total[i] += self._score(outputs, i, split.label)
    return (total if higher else -total).astype(np.float32) / draws

  def _selection_output(self) -> tuple[str, ...]:
    return ('unimodal_predictions',) if self.method.model == 'unimodal' else ('prediction',)

  def _score(self, outputs: dict[str, np.ndarray], seed: int, label: np.ndarray) -> float:
    spec = self.prepared.spec
    if self.method.model == 'unimodal':  # All single-modality models train side by side; their mean selects.
      each = outputs['unimodal_predictions'][seed]
      return float(np.mean([sample_scores(spec, each[:, m], label).mean() for m in range(spec.num_modalities)]))
    return float(sample_scores(spec, outputs['prediction'][seed], label).mean())

  def run(self, workdir: str, *, max_steps: int | None = None) -> Trained:
    """Trains to the end of the schedule, or continues from the latest checkpoint.

    Args:
      workdir: folder of the run.
      max_steps: stop early, after a whole call; tests use it as a planned interruption.
    """
    directory = f'{workdir}/checkpoints/{self.method.name}'
    main_process = jax.process_index() == 0
    with Checkpoints(directory) as checkpoints:
      found = checkpoints.restore_latest(self.abstract_state)
      state = self._create(self._seeds) if found is None else found[1]
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
    batches = device_prefetch(self._batches(step), self._put) if step < end else iter(())
    for batch in batches:
      state, terms = self._call(state, batch, self._seeds)
      step += s.per_call
      # Metrics of a call are fetched after the next one is under way, so that reading them never stalls the device.
      note = self._write(writer, pending)
      pending.append((step, terms))
      progress.update(step, note)
      if step % s.eval_every == 0:
        score = self.validate(state.average)
        self._write(writer, pending)
        writer.write(step, {'validation_score': score})
        state = self._select(state, put(score, sharding(self.mesh, 'seed')))
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
