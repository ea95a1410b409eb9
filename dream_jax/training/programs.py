"""Everything one method compiles, once and before the first batch: initialisation, the step, selection, prediction.

Methods that differ only in what is removed from their training data share one set of programs.
"""

import dataclasses
import math
import time
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, PartitionSpec

from dream_jax.config.recipe import Recipe
from dream_jax.data.prepare import Prepared
from dream_jax.evaluation.predict import Predictor, eval_rows
from dream_jax.machine import memory
from dream_jax.models.model import ORACLE_MASK, Model
from dream_jax.models.registry import Method, build
from dream_jax.parallel.mesh import check_divides, make_mesh, put, sharding
from dream_jax.spec import DatasetSpec
from dream_jax.training.mapped import STATE, MappedSteps
from dream_jax.training.runs import Runs, with_values
from dream_jax.training.step import (
  Selection,
  TrainState,
  create_optimizer,
  create_state,
  finite,
  select_best,
  train_call,
)


@dataclasses.dataclass(frozen=True)
class Programs:
  """Compiled functions of one method and the shapes they take.

  Attributes:
    create: seeds -> state before the first step.
    call: (state without selections, batches, seeds, values) -> (state, terms); the state given is consumed.
    select: (selection, average, step, score) -> selection; the selection given is consumed.
    finite: average -> whether all numbers of a run are finite, bool [S].
    predictor: the forward pass.
    abstract_state: shapes and shardings of the state.
    mesh: the devices to use.
    with_clean: whether batches hold the inputs before the injection.
    num_params: parameters of one seed.
    step_flops: floating-point operations of one seed's gradient of one batch as XLA counts them before optimisation;
      None where it does not say.
    compile_seconds: time spent tracing and compiling.
  """

  create: Callable[..., TrainState]
  call: Callable[..., Any]
  select: Callable[..., Selection]
  finite: Callable[[Any], jax.Array]
  predictor: Predictor
  abstract_state: TrainState
  mesh: Mesh
  with_clean: bool
  num_params: int
  step_flops: float | None
  compile_seconds: float


def program_key(method: Method, recipe: Recipe, spec: DatasetSpec, runs: Runs | None = None) -> tuple[Any, ...]:
  """Methods of one recipe with equal keys compile to the same programs."""
  runs = Runs(recipe.seeds) if runs is None else runs
  fields = tuple(field for field, _ in runs.values)
  parts = bool(recipe.inject.parts)  # Batches say which frames were kept, or do not.
  return build(method, spec, recipe.model, recipe.losses), recipe.optimizer, len(runs), fields, parts


def compile_programs(
  method: Method,
  recipe: Recipe,
  prepared: Prepared,
  *,
  num_steps: int,
  per_call: int,
  runs: Runs | None = None,
) -> Programs:
  """Traces and compiles for the shapes of a recipe, ahead of time.

  Args:
    method: what to train.
    recipe: how.
    prepared: on what; its spec and the sizes of its splits matter.
    num_steps: length of training, which the learning rate depends on.
    per_call: K.
    runs: what trains side by side; only their number and the fields they differ in matter. The recipe's seeds if None.
  """
  start = time.perf_counter()
  spec, runs = prepared.spec, Runs(recipe.seeds) if runs is None else runs
  mesh = mesh_of(recipe)
  model, oracle = build(method, spec, recipe.model, recipe.losses), 'mask' in method.uses_oracle
  lowered = lower(method, recipe, spec, mesh, num_steps=num_steps, per_call=per_call, runs=runs)
  _require_memory(method, lowered)
  abstract, options = lowered.state, compiler_options()
  assert abstract.best is not None
  by_seed = sharding(mesh, 'seed')
  owner = model.owners(abstract.params) if method.separate else None
  select = jax.jit(
    lambda chosen, average, step, s: select_best(chosen, average, step, s, owner),
    donate_argnums=0,
    out_shardings=by_seed,
  )
  return Programs(
    create=lowered.create.compile(compiler_options=compiler_options(once=True)),
    call=lowered.call.compile(options),
    select=select.lower(abstract.best, abstract.average, abstract.step, abstract.best.score).compile(
      compiler_options=compiler_options(once=True)
    ),
    finite=jax.jit(finite, out_shardings=by_seed).lower(abstract.average).compile(compiler_options=options),
    predictor=Predictor(
      model,
      mesh,
      abstract.params,
      _abstract_inputs(spec, eval_rows(prepared, mesh, recipe.train.eval_batch_size), mesh, oracle),
      compiler_options=options,
      oracle=oracle,
    ),
    abstract_state=abstract,
    mesh=mesh,
    with_clean=model.reads_clean,
    num_params=sum(x.size for x in jax.tree.leaves(abstract.params)) // len(runs),
    step_flops=step_flops(model, abstract.params, lowered.batch),
    compile_seconds=time.perf_counter() - start,
  )


@dataclasses.dataclass(frozen=True)
class Lowered:
  """The training programs of one method as they go to the compiler, with the shapes and shardings they take.

  Attributes:
    create: seeds -> state before the first step.
    call: (state without selections, batches, seeds, values) -> (state, terms).
    state: the whole state, selections included.
    batch: one superbatch.
  """

  create: jax.stages.Lowered
  call: MappedSteps
  state: TrainState
  batch: dict[str, Any]


def lower(
  method: Method,
  recipe: Recipe,
  spec: DatasetSpec,
  mesh: Mesh,
  *,
  num_steps: int,
  per_call: int,
  runs: Runs,
  platform: str | None = None,
) -> Lowered:
  """Traces the training programs for a mesh, whose devices need not be there to run them; see `compile_programs`.

  Operations that platforms implement differently are those of `platform`, of the mesh's devices if None.
  """
  check_divides(mesh, num_seeds=len(runs), batch_size=recipe.train.batch_size)
  model, oracle = build(method, spec, recipe.model, recipe.losses), 'mask' in method.uses_oracle

  def make_run(values):
    own = with_values(recipe, values)
    model = build(method, spec, own.model, own.losses)
    return model.gradient, create_optimizer(own.optimizer, num_steps, model.undecayed)

  def steps(state, batches, seeds, values):
    return train_call(make_run, recipe.optimizer.average_decay, state, batches, seeds, values, names)

  names = {m.inside: m.name for m in spec.modalities}
  by_seed = sharding(mesh, 'seed')
  where = jax.tree.map(lambda axes: sharding(mesh, *axes), STATE, is_leaf=lambda x: isinstance(x, PartitionSpec))
  seeds = jax.ShapeDtypeStruct((len(runs),), jnp.uint32, sharding=by_seed)
  sample = {name: np.zeros((1, *shape), dtype) for name, (shape, dtype) in _inputs(spec, oracle).items()}
  score_shape = (spec.num_modalities,) if method.separate else ()
  optimizer = create_optimizer(recipe.optimizer, num_steps, model.undecayed)
  create = jax.jit(
    lambda s: create_state(model, optimizer, sample, s, score_shape=score_shape), out_shardings=where
  ).lower(seeds)
  spread = jax.tree.map(lambda _: by_seed, create.out_info).replace(step=where.step)
  state = jax.tree.map(lambda x, s: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=s), create.out_info, spread)
  moving = dataclasses.replace(state, best=None)
  batch = _abstract_batch(spec, recipe, mesh, per_call, len(runs), with_clean=model.reads_clean, oracle=oracle)
  values = {field: jax.ShapeDtypeStruct(seeds.shape, jnp.float32, sharding=by_seed) for field in _traced(runs)}
  call = MappedSteps(steps, mesh, moving, batch, seeds, values, how=recipe.parallel, platform=platform)
  return Lowered(create, call, state, batch)


def _require_memory(method: Method, lowered: Lowered) -> None:
  """Refuses a state and a superbatch that a CPU has no room for; accelerators say so themselves."""
  if jax.default_backend() == 'cpu':
    leaves = jax.tree.leaves((lowered.state, lowered.batch))
    # The step makes a gradient of every parameter, too: at least as much again as the parameters of the state.
    size = sum(x.size * x.dtype.itemsize for x in (*leaves, *jax.tree.leaves(lowered.state.params)))
    memory.require(size, f'training {method.name} with config.num_seeds, model.width, train.batch_size as they are')


def check_mesh(recipe: Recipe) -> None:
  """Raises UserError where the devices cannot share the seeds, the points of a search, or the batches of a recipe."""
  mesh, search = mesh_of(recipe), recipe.study.search
  for runs in (recipe.num_seeds, search.points * search.seeds):
    check_divides(mesh, num_seeds=runs, batch_size=recipe.train.batch_size)


def mesh_of(recipe: Recipe, devices: Sequence[Any] | None = None) -> Mesh:
  """The mesh of a recipe over these devices, all if None.

  Seeds need nothing from each other: 'mesh.seed' 0 gives them all devices they divide.
  """
  devices = jax.devices() if devices is None else devices
  m, search = recipe.mesh, recipe.study.search
  seed = math.gcd(len(devices), recipe.num_seeds, search.points * search.seeds) if m.seed == 0 else m.seed
  if recipe.parallel == 'pmap':
    seed = 1 if m.seed == 0 else seed
  return make_mesh(seed, m.data, devices)


def put_values(runs: Runs, mesh: Mesh) -> dict[str, jax.Array]:
  """Settings of the runs as `Programs.call` takes them."""
  chosen = dict(runs.values)
  return put({field: np.asarray(chosen[field], np.float32) for field in _traced(runs)}, sharding(mesh, 'seed'))


def _traced(runs: Runs) -> list[str]:
  """Fields that the step reads; rates of injection are the data's."""
  return [field for field, _ in runs.values if field != 'inject.rate']


def step_flops(model: Model, params: Any, batch: Any) -> float | None:
  """Of one seed's gradient of one batch; counted on what is lowered, nothing is compiled."""
  one = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape[1:], x.dtype), params)
  rows = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape[2:], x.dtype), batch)
  key = jax.eval_shape(lambda: jax.random.key(0))
  cost = jax.jit(model.gradient).lower(one, rows, key).cost_analysis() or {}
  return float(cost['flops']) if cost.get('flops', 0) > 0 else None


def compiler_options(*, once: bool = False) -> dict[str, Any]:
  """Options of every compilation.

  On CPU the lower LLVM level compiles about three times faster, and the vectorised steps it makes run as fast or
  faster (`benchmarks/compile_options.py`). What runs a handful of times (`once`) is not optimised at all.
  """
  return {'xla_backend_optimization_level': 0 if once else 1} if jax.default_backend() == 'cpu' else {}


def _inputs(spec: DatasetSpec, oracle: bool) -> dict[str, tuple[tuple[int, ...], Any]]:
  """Shape of one sample and dtype of everything a model reads."""
  inputs: dict[str, tuple[tuple[int, ...], Any]] = {}
  for m in spec.modalities:
    inputs[m.name] = (m.shape, np.int32 if m.kind == 'tokens' else np.float32)
    if m.has_length:
      inputs[m.length_name] = ((), np.int32)
  if oracle:
    inputs[ORACLE_MASK] = ((spec.num_modalities,), np.float32)
  return inputs


def _abstract_inputs(spec: DatasetSpec, rows: int, mesh: Mesh, oracle: bool) -> dict[str, Any]:
  """Shapes of a batch of evaluation."""
  where = sharding(mesh, 'data')
  return {n: jax.ShapeDtypeStruct((rows, *s), d, sharding=where) for n, (s, d) in _inputs(spec, oracle).items()}


def _abstract_batch(
  spec: DatasetSpec, recipe: Recipe, mesh: Mesh, per_call: int, num_runs: int, *, with_clean: bool, oracle: bool
) -> dict[str, Any]:
  """Shapes of one superbatch, as `data.pipeline.train_batches` makes it."""
  lead = (per_call, num_runs, recipe.train.batch_size)
  where = sharding(mesh, None, 'seed', 'data')

  def leaf(shape, dtype):
    return jax.ShapeDtypeStruct((*lead, *shape), dtype, sharding=where)

  label_shape = (spec.num_outputs,) if spec.task == 'multilabel' else ()
  batch = {
    'inputs': {name: leaf(*kind) for name, kind in _inputs(spec, oracle).items()},
    'label': leaf(label_shape, np.float32 if spec.task in ('regression', 'multilabel') else np.int32),
    'kept': leaf((spec.num_modalities,), np.float32),
  }
  frames = {m.name: leaf(m.shape[:1], np.bool_) for m in spec.modalities if m.has_length}
  if frames and recipe.inject.parts:
    batch['kept_frames'] = frames
  if with_clean:
    batch['clean'] = {name: leaf(*kind) for name, kind in _inputs(spec, False).items()}
  return batch
