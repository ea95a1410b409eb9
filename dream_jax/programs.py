"""Everything one method compiles, once and before the first batch: initialisation, the step, selection, prediction.

Methods that differ only in what is removed from their training data share one set of programs.
"""

import dataclasses
import time
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from dream_jax import losses
from dream_jax.data.prepare import Prepared
from dream_jax.models.baselines.concat import ORACLE_MASK
from dream_jax.models.baselines.late import owners
from dream_jax.models.registry import Method, build
from dream_jax.parallel.mesh import check_divides, make_mesh, sharding
from dream_jax.predict import Predictor
from dream_jax.recipe import Recipe
from dream_jax.spec import DatasetSpec
from dream_jax.step import TrainState, create_optimizer, create_state, select_best, train_call


@dataclasses.dataclass(frozen=True)
class Programs:
  """Compiled functions of one method and the shapes they take.

  Attributes:
    create: seeds -> state before the first step.
    call: (state, batches, seeds) -> (state, terms); the state given is consumed.
    select: (state, score) -> state; the state given is consumed.
    predictor: the forward pass.
    abstract_state: shapes and shardings of the state.
    mesh: of the devices.
    with_clean: whether batches hold the inputs before the injection.
    num_params: parameters of one seed.
    compile_seconds: time spent tracing and compiling.
  """

  create: Callable[..., TrainState]
  call: Callable[..., Any]
  select: Callable[..., TrainState]
  predictor: Predictor
  abstract_state: TrainState
  mesh: Mesh
  with_clean: bool
  num_params: int
  compile_seconds: float


def program_key(method: Method, recipe: Recipe, spec: DatasetSpec) -> tuple[Any, ...]:
  """Methods of one recipe with equal keys compile to the same programs."""
  return method.model, build(method, spec, recipe.model)


def compile_programs(method: Method, recipe: Recipe, prepared: Prepared, *, num_steps: int, per_call: int) -> Programs:
  """Traces and compiles for the shapes of a recipe, ahead of time.

  Args:
    method: what to train.
    recipe: how.
    prepared: on what; its spec and the sizes of its splits matter.
    num_steps: length of training, which the learning rate depends on.
    per_call: K.
  """
  start = time.perf_counter()
  spec = prepared.spec
  mesh = make_mesh(recipe.parallel.seed, recipe.parallel.data)
  check_divides(mesh, num_seeds=recipe.num_seeds, batch_size=recipe.train.batch_size)
  model = build(method, spec, recipe.model)
  loss = losses.method_loss(method, model, recipe.losses)
  with_clean = losses.needs_clean(method, model)
  oracle = 'mask' in method.uses_oracle
  optimizer = create_optimizer(recipe.optimizer, num_steps)
  by_seed, alone = sharding(mesh, 'seed'), sharding(mesh)
  # Shardings where a state has arrays.
  where = TrainState(alone, *(by_seed for _ in dataclasses.fields(TrainState)[1:]))  # pyright: ignore[reportArgumentType]
  options = compiler_options()
  seeds = jax.ShapeDtypeStruct((recipe.num_seeds,), jnp.uint32, sharding=by_seed)

  sample = {name: np.zeros((1, *shape), dtype) for name, (shape, dtype) in _inputs(spec, oracle).items()}
  separate = method.model == 'unimodal'  # M models side by side, each selected by itself.
  score_shape = (spec.num_modalities,) if separate else ()
  create = jax.jit(lambda s: create_state(model, optimizer, sample, s, score_shape), out_shardings=where).lower(seeds)
  abstract = create.out_info
  spread = jax.tree.map(lambda x: by_seed, abstract).replace(step=alone)
  abstract = jax.tree.map(lambda x, s: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=s), abstract, spread)
  call = jax.jit(
    lambda state, batches, s: train_call(loss, optimizer, recipe.optimizer.average_decay, state, batches, s),
    donate_argnums=0,
    out_shardings=(where, alone),
  )
  batch = _abstract_batch(spec, recipe, mesh, per_call, with_clean=with_clean, oracle=oracle)
  score = jax.ShapeDtypeStruct(seeds.shape + score_shape, jnp.float32, sharding=by_seed)
  owner = owners(spec, abstract.params) if separate else None
  select = jax.jit(lambda state, s: select_best(state, s, owner), donate_argnums=0, out_shardings=where)
  return Programs(
    create=create.compile(compiler_options=options),
    call=call.lower(abstract, batch, seeds).compile(compiler_options=options),
    select=select.lower(abstract, score).compile(compiler_options=options),
    predictor=Predictor(
      model,
      mesh,
      abstract.params,
      prepared,
      batch_size=recipe.train.eval_batch_size,
      compiler_options=options,
      oracle=oracle,
    ),
    abstract_state=abstract,
    mesh=mesh,
    with_clean=with_clean,
    num_params=sum(x.size for x in jax.tree.leaves(abstract.params)) // recipe.num_seeds,
    compile_seconds=time.perf_counter() - start,
  )


def compiler_options() -> dict[str, Any]:
  """Options of every compilation.

  On CPU the lower LLVM level compiles about three times faster, and the vectorised steps it makes run as fast or
  faster (`benchmarks/compile_options.py`).
  """
  return {'xla_backend_optimization_level': 1} if jax.default_backend() == 'cpu' else {}


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


def _abstract_batch(
  spec: DatasetSpec, recipe: Recipe, mesh: Mesh, per_call: int, *, with_clean: bool, oracle: bool
) -> dict[str, Any]:
  """Shapes of one superbatch, as `data.pipeline.train_batches` makes it."""
  lead = (per_call, recipe.num_seeds, recipe.train.batch_size)
  where = sharding(mesh, None, 'seed', 'data')

  def leaf(shape, dtype):
    return jax.ShapeDtypeStruct((*lead, *shape), dtype, sharding=where)

  label_shape = (spec.num_outputs,) if spec.task == 'multilabel' else ()
  batch = {
    'inputs': {name: leaf(*kind) for name, kind in _inputs(spec, oracle).items()},
    'label': leaf(label_shape, np.float32 if spec.task in ('regression', 'multilabel') else np.int32),
    'kept': leaf((spec.num_modalities,), np.float32),
  }
  if with_clean:
    batch['clean'] = {name: leaf(*kind) for name, kind in _inputs(spec, False).items()}
  return batch
