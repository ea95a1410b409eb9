"""The step, as pure functions: all seeds of one method take K steps in one call.

`lax.scan` over steps, `vmap` over seeds. Whatever is random is a pure function of the seed and the step's number.

Dimension letters: S seeds, K steps a call, B batch.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import flax.struct
import jax
import jax.numpy as jnp
import optax

from dream_jax.config.recipe import OptimizerSettings

_INIT_STREAM, _STEP_STREAM = 0, 1


# What one run is made of: its settings -> (gradient, optimizer).
MakeRun = Callable[[dict[str, jax.Array]], tuple[Callable[..., Any], optax.GradientTransformation]]


@flax.struct.dataclass
class Selection:
  """Parameters of the best score so far; leaves have a leading axis S.

  Attributes:
    params: the parameters.
    score: float32 [S], higher is better; [S, M] where M models of one modality each train side by side.
    step: int32, of the same shape, the step it was reached at; -1 for a run that diverged, of which nothing
      more is selected.
  """

  params: Any
  score: jax.Array
  step: jax.Array


@flax.struct.dataclass
class TrainState:
  """All that a checkpoint holds; leaves have a leading axis S, but for the step.

  Attributes:
    step: int32 [], steps done.
    params: parameters.
    average: running average of the parameters: what is validated, selected and used.
    opt_state: state of the optimizer.
    best: what validation selected so far; None inside the compiled steps, which do not read it.
    peeked: what the test split would have selected; None but in a study of what that habit is worth.
  """

  step: jax.Array
  params: Any
  average: Any
  opt_state: Any
  best: Selection | None = None
  peeked: Selection | None = None


def create_optimizer(
  settings: OptimizerSettings, num_steps: int, undecayed: Sequence[str] = ()
) -> optax.GradientTransformation:
  """AdamW after clipping, with linear warm-up and cosine decay to zero.

  Args:
    settings: rates; they may be traced values.
    num_steps: length of training.
    undecayed: names of top-level modules that weight decay leaves alone, see `Model.undecayed`.
  """

  def decayed(params: Any) -> Any:
    return {name: name not in undecayed for name in params}

  warmup = int(settings.warmup_fraction * num_steps)
  shape = optax.warmup_cosine_decay_schedule(0.0, 1.0, warmup, max(num_steps, warmup + 1))
  return optax.chain(
    optax.clip_by_global_norm(settings.clip_norm),
    optax.scale_by_adam(),
    optax.add_decayed_weights(settings.weight_decay, mask=decayed),
    optax.scale_by_learning_rate(lambda count: settings.learning_rate * shape(count)),
  )


def seed_key(seed: jax.Array, stream: int) -> jax.Array:
  """Key of one named stream of randomness of one seed."""
  return jax.random.fold_in(jax.random.key(seed), stream)


def create_state(
  model: Any,
  optimizer: optax.GradientTransformation,
  inputs: dict[str, Any],
  seeds: jax.Array,
  *,
  score_shape: tuple[int, ...] = (),
) -> TrainState:
  """The state before the first step: every seed with an initialisation of its own.

  Args:
    model: Flax module.
    optimizer: whose state is made.
    inputs: any batch of inputs, for shapes.
    seeds: uint32 [S].
    score_shape: the shape of one seed's validation score: (M,) where every modality is a model of its own.
  """

  def params_of(seed):
    return model.init({'params': seed_key(seed, _INIT_STREAM)}, inputs, train=False)['params']

  params = jax.vmap(params_of)(seeds)
  shape = seeds.shape + score_shape
  nothing = Selection(params, jnp.full(shape, -jnp.inf, jnp.float32), jnp.zeros(shape, jnp.int32))
  return TrainState(
    step=jnp.zeros((), jnp.int32),
    params=params,
    average=params,
    opt_state=jax.vmap(optimizer.init)(params),
    best=nothing,
  )


def train_call(
  make_run: MakeRun,
  decay: float,
  state: TrainState,
  batches: dict[str, Any],
  seeds: jax.Array,
  values: dict[str, jax.Array],
  names: Mapping[str, str] | None = None,
) -> tuple[TrainState, dict[str, jax.Array]]:
  """K steps of all seeds: (state, mean of each loss term and gradient norm over the K steps, [S]).

  Norms of the gradients of single modalities' encoders are 'gradient_norm/NAME'.

  Args:
    make_run: settings of a run -> (gradient, optimizer), see `models.model.Model.gradient`.
    decay: decay of the average of parameters, reached after a warm-up (Tarvainen & Valpola, 2017); 0 averages none.
    state: leading axis S.
    batches: leading axes [K, S, B].
    seeds: uint32 [S].
    values: settings that differ between the runs, [S] each.
    names: what a network calls a modality -> its name, where they differ.
  """

  def one_seed(params, opt_state, batch, seed, values, step):
    gradient, optimizer = make_run(values)
    rng = jax.random.fold_in(seed_key(seed, _STEP_STREAM), step)
    (total, terms), grads = gradient(params, batch, rng)
    updates, opt_state = optimizer.update(grads, opt_state, params)
    terms = {**terms, 'loss': total, 'gradient_norm': optax.tree.norm(grads)}
    for key, encoder in grads.get('encoders', {}).items():
      terms[f'gradient_norm/{(names or {}).get(key, key)}'] = optax.tree.norm(encoder)
    return optax.apply_updates(params, updates), opt_state, terms

  def one_step(state, batch):
    params, opt_state, terms = jax.vmap(one_seed, in_axes=(0, 0, 0, 0, 0, None))(
      state.params, state.opt_state, batch, seeds, values, state.step
    )
    done = state.step.astype(jnp.float32)
    keep = jnp.minimum(decay, (1.0 + done) / (10.0 + done))
    average = jax.tree.map(
      lambda a, p: keep.astype(p.dtype) * a + (1.0 - keep).astype(p.dtype) * p, state.average, params
    )
    return state.replace(params=params, average=average, opt_state=opt_state, step=state.step + 1), terms

  state, terms = jax.lax.scan(one_step, state, batches)
  return state, jax.tree.map(lambda x: x.mean(0), terms)


def select_best(selection: Selection, average: Any, step: jax.Array, score: jax.Array, owner: Any = None) -> Selection:
  """The selection after a reading of a split: each seed keeps its best parameters, the later of equals.

  Args:
    selection: leading axis S.
    average: the parameters that were scored.
    step: int32 [], when.
    score: float32 [S], or [S, M] for M separate models; higher is better, one that is not finite never wins.
    owner: for M separate models, a tree like the parameters: which of them a leaf belongs to, -1 for a leaf [S, M, ...]
      that holds a part of each.
  """
  # Minus infinity would be equal to the score of no reading at all.
  better = (score >= selection.score) & jnp.isfinite(score) & (selection.step >= 0)

  def keep(new, old, index):
    mine = better if index < 0 else better[:, index]
    return jnp.where(mine.reshape(mine.shape + (1,) * (new.ndim - mine.ndim)), new, old)

  owner = jax.tree.map(lambda _: -1, average) if owner is None else owner
  return Selection(
    params=jax.tree.map(keep, average, selection.params, owner),
    score=jnp.where(better, score, selection.score),
    step=jnp.where(better, step, selection.step),
  )


def finite(tree: Any) -> jax.Array:
  """Whether all numbers of a run are finite, bool [S], of a tree whose leaves have a leading axis S."""
  # One array compiles six times faster than a reduction of every leaf.
  flat = [x.reshape(x.shape[0], -1) for x in jax.tree.leaves(tree)]
  return jnp.isfinite(jnp.concatenate(flat, axis=1)).all(1)
