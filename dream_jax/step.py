"""The step, as pure functions: all seeds of one method take K steps in one call.

`lax.scan` over steps, `vmap` over seeds. Whatever is random is a pure function of the seed and the step's number.

Dimension letters: S seeds, K steps a call, B batch.
"""

import dataclasses
from collections.abc import Callable
from typing import Any

import flax.struct
import jax
import jax.numpy as jnp
import optax

from dream_jax.recipe import OptimizerSettings

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
    best_score: float32 [S], higher is better; [S, M] where M models of one modality each train side by side.
    best_step: int32, of the same shape, the step it was reached at.
  """

  step: jax.Array
  params: Any
  average: Any
  opt_state: Any
  best_params: Any
  best_score: jax.Array
  best_step: jax.Array


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
  model: Any,
  optimizer: optax.GradientTransformation,
  inputs: dict[str, Any],
  seeds: jax.Array,
  score_shape: tuple[int, ...] = (),
) -> TrainState:
  """The state before the first step: every seed with an initialisation of its own.

  Args:
    model: Flax module.
    optimizer: whose state is made.
    inputs: any batch of inputs, for shapes.
    seeds: uint32 [S].
    score_shape: of one seed's validation score: (M,) where every modality is a model of its own.
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
    best_score=jnp.full(seeds.shape + score_shape, -jnp.inf, jnp.float32),
    best_step=jnp.zeros(seeds.shape + score_shape, jnp.int32),
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
    decay: of the running average of parameters, reached after a warm-up (Tarvainen & Valpola, 2017); 0 averages none.
    state: leading axis S.
    batches: leading axes [K, S, B].
    seeds: uint32 [S].
  """

  def one_seed(params, opt_state, batch, seed, step):
    rng = jax.random.fold_in(seed_key(seed, _STEP_STREAM), step)
    (total, terms), grads = jax.value_and_grad(loss, has_aux=True)(params, batch, rng)
    updates, opt_state = optimizer.update(grads, opt_state, params)
    terms = {**terms, 'loss': total, 'gradient_norm': optax.tree.norm(grads)}
    return optax.apply_updates(params, updates), opt_state, terms

  def one_step(state, batch):
    params, opt_state, terms = jax.vmap(one_seed, in_axes=(0, 0, 0, 0, None))(
      state.params, state.opt_state, batch, seeds, state.step
    )
    done = state.step.astype(jnp.float32)
    keep = jnp.minimum(decay, (1.0 + done) / (10.0 + done))
    average = jax.tree.map(
      lambda a, p: keep.astype(p.dtype) * a + (1.0 - keep).astype(p.dtype) * p, state.average, params
    )
    return state.replace(params=params, average=average, opt_state=opt_state, step=state.step + 1), terms

  state, terms = jax.lax.scan(one_step, state, batches)
  return state, jax.tree.map(lambda x: x.mean(0), terms)


def select_best(state: TrainState, score: jax.Array, owner: Any = None) -> TrainState:
  """The state after a reading of the validation set: each seed keeps its best parameters, the later of equals.

  Args:
    state: leading axis S.
    score: float32 [S], or [S, M] for M separate models; higher is better, NaN never wins.
    owner: for M separate models, a tree like the parameters: which of them a leaf belongs to, -1 for a leaf [S, M, ...]
      that holds a part of each.
  """
  better = score >= state.best_score

  def keep(new, old, index):
    mine = better if index < 0 else better[:, index]
    return jnp.where(mine.reshape(mine.shape + (1,) * (new.ndim - mine.ndim)), new, old)

  owner = jax.tree.map(lambda _: -1, state.average) if owner is None else owner
  return dataclasses.replace(
    state,
    best_params=jax.tree.map(keep, state.average, state.best_params, owner),
    best_score=jnp.where(better, score, state.best_score),
    best_step=jnp.where(better, state.step, state.best_step),
  )
