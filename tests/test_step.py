"""The step by itself: what the running average holds, what selection keeps, and which methods may share programs."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from small_runs import jit, optax_promotes, small_recipe, small_spec  # noqa: F401

from dream_jax.api import empty_inputs
from dream_jax.config.recipe import OptimizerSettings
from dream_jax.models.registry import METHODS, build, find_method
from dream_jax.training.programs import program_key
from dream_jax.training.runs import Runs
from dream_jax.training.step import Selection, TrainState, create_optimizer, finite, select_best, train_call

_SEEDS = np.array([3, 4], np.uint32)
_NUM_STEPS = 6


def _state(**fields):
  params = {'w': jnp.asarray([[1.0, -2.0], [0.5, 4.0]])}
  optimizer = optax.sgd(0.1)
  start = {
    'step': jnp.asarray(0, jnp.int32),
    'params': params,
    'average': params,
    'opt_state': jax.vmap(optimizer.init)(params),
    'best': Selection(params, jnp.full(2, -jnp.inf), jnp.zeros(2, jnp.int32)),
  }
  return TrainState(**{**start, **fields})


def _loss(params, batch, rng):
  del rng
  loss = jnp.square(params['w'] - batch['x']).mean()
  return loss, {'task': loss}


def _make_run(values):
  del values
  return jax.value_and_grad(_loss, has_aux=True), optax.sgd(0.1)


def _steps(decay):
  """The state after every step: a quadratic whose target moves, so that parameters never rest."""
  x = np.random.default_rng(0).normal(size=(_NUM_STEPS, 1, 2, 2)).astype(np.float32)
  call = jit(lambda state, x: train_call(_make_run, decay, state, {'x': x}, _SEEDS, {}))
  states = [_state()]
  for batch in x:
    states.append(call(states[-1], batch)[0])
  return states


def test_without_decay_the_average_is_the_parameters():
  for state in _steps(0.0):
    np.testing.assert_array_equal(state.average['w'], state.params['w'])


@pytest.mark.parametrize('decay', [0.2, 0.99])
def test_average_follows_its_recurrence_after_a_warm_up(decay):
  states = _steps(decay)
  average = np.asarray(states[0].average['w'], np.float64)
  for i, state in enumerate(states[1:]):
    keep = min(decay, (1 + i) / (10 + i))
    average = keep * average + (1 - keep) * np.asarray(state.params['w'], np.float64)
    np.testing.assert_allclose(state.average['w'], average, rtol=1e-5)
    assert not np.array_equal(state.average['w'], state.params['w'])


def test_averaging_does_not_touch_the_parameters_that_are_trained():
  for raw, averaged in zip(_steps(0.0), _steps(0.99), strict=True):
    np.testing.assert_array_equal(raw.params['w'], averaged.params['w'])


def test_selection_keeps_the_average_and_not_the_parameters():
  average = {'w': jnp.asarray([[10.0, 20.0], [30.0, 40.0]])}
  state = _state()
  before = state.best.replace(score=jnp.asarray([0.5, 0.5]))
  after = select_best(before, average, jnp.asarray(5, jnp.int32), jnp.asarray([0.6, 0.4]))
  np.testing.assert_array_equal(after.params['w'], [[10.0, 20.0], [0.5, 4.0]])
  np.testing.assert_array_equal(after.step, [5, 0])
  np.testing.assert_array_equal(after.score, np.float32([0.6, 0.5]))


def test_weight_decay_leaves_the_named_modules_alone():
  optimizer = create_optimizer(OptimizerSettings(weight_decay=0.5, warmup_fraction=0.0), 10, ('recogniser',))
  params = {'recogniser': {'kernel': jnp.ones(3)}, 'heads': {'kernel': jnp.ones(3)}}
  updates, _ = optimizer.update(jax.tree.map(jnp.zeros_like, params), optimizer.init(params), params)
  assert not updates['recogniser']['kernel'].any()
  assert (updates['heads']['kernel'] < 0).all()


def test_a_step_is_that_of_adamw_after_clipping_with_warm_up_and_cosine_decay():
  settings = OptimizerSettings(learning_rate=0.1, weight_decay=0.3, warmup_fraction=0.2, clip_norm=2.0)
  optimizer = create_optimizer(settings, 10)
  rng = np.random.default_rng(0)
  gradients = rng.normal(size=(10, 3)) * 10.0 ** rng.integers(-2, 3, (10, 1))  # Some far beyond the norm.
  params = {'heads': jnp.ones(3)}
  state, wanted, mean, square = optimizer.init(params), np.ones(3), 0.0, 0.0
  for i, g in enumerate(gradients):
    updates, state = optimizer.update({'heads': jnp.asarray(g, jnp.float32)}, state, params)
    params = optax.apply_updates(params, updates)
    g = g * min(1.0, 2.0 / np.linalg.norm(g))
    mean, square = 0.9 * mean + 0.1 * g, 0.999 * square + 0.001 * g**2
    rate = 0.1 * (i / 2 if i < 2 else (1 + np.cos(np.pi * (i - 2) / 8)) / 2)
    adam = mean / (1 - 0.9 ** (i + 1)) / (np.sqrt(square / (1 - 0.999 ** (i + 1))) + 1e-8)
    wanted = wanted - rate * (adam + 0.3 * wanted)
    np.testing.assert_allclose(params['heads'], wanted, rtol=1e-4, atol=1e-5)


def test_every_seed_and_step_draws_for_itself_and_terms_are_means_over_steps():
  def make_run(values):
    del values

    def gradient(params, batch, rng):
      del batch
      drawn = jax.random.uniform(rng)
      return (drawn, {'task': drawn}), jax.tree.map(jnp.zeros_like, params)

    return gradient, optax.sgd(0.1)

  def call(state, steps):
    return train_call(make_run, 0.0, state, {'x': jnp.zeros((steps, 2, 2))}, _SEEDS, {})

  state, each = _state(), []
  for _ in range(3):
    state, terms = call(state, 1)
    each.append(np.asarray(terms['task']))
  assert len(np.unique(each)) == 6
  np.testing.assert_allclose(call(_state(), 3)[1]['task'], np.mean(each, axis=0), rtol=1e-6)


def test_later_of_equal_readings_wins_and_nan_never():
  average = {'w': jnp.arange(3.0)[:, None]}
  before = Selection({'w': -jnp.ones((3, 1))}, jnp.asarray([0.5, 0.5, 0.5]), jnp.asarray([1, 1, 1], jnp.int32))
  chosen = select_best(before, average, jnp.asarray(9, jnp.int32), jnp.asarray([0.5, 0.4, jnp.nan]))
  np.testing.assert_array_equal(chosen.step, [9, 1, 1])
  np.testing.assert_array_equal(chosen.params['w'][:, 0], [0.0, -1.0, -1.0])


def test_minus_infinity_is_no_score_and_nothing_is_selected_of_a_run_that_diverged():
  average = {'w': jnp.arange(3.0)[:, None]}
  nothing = jnp.full(3, -jnp.inf)
  before = Selection({'w': -jnp.ones((3, 1))}, nothing, jnp.asarray([0, 0, -1], jnp.int32))
  chosen = select_best(before, average, jnp.asarray(9, jnp.int32), jnp.asarray([-jnp.inf, 0.4, 0.9]))
  np.testing.assert_array_equal(chosen.step, [0, 9, -1])
  np.testing.assert_array_equal(chosen.score, np.float32([-np.inf, 0.4, -np.inf]))
  np.testing.assert_array_equal(chosen.params['w'][:, 0], [-1.0, 1.0, -1.0])


@pytest.mark.parametrize('bad', [np.nan, np.inf, -np.inf])
def test_one_number_that_is_not_finite_is_found_and_named_by_its_run(bad):
  tree = {'a': np.ones((3, 2, 2), np.float32), 'b': {'c': np.ones(3, np.float32)}}
  assert finite(tree).tolist() == [True] * 3
  tree['a'][2, 0, 1] = bad
  tree['b']['c'][0] = bad
  assert finite(tree).tolist() == [False, True, False]


def test_separate_models_are_selected_by_themselves():
  spec = small_spec()
  m = spec.num_modalities
  model = build(find_method('unimodal'), spec, small_recipe().model)
  params = jax.eval_shape(lambda: model.init(jax.random.key(0), empty_inputs(spec, 1), train=False)['params'])
  owner = model.owners(params)
  assert set(jax.tree.leaves(owner)) == {-1, *range(m)}
  full = jax.tree.map(lambda x: jnp.ones((2, *x.shape)), params)
  before = Selection(jax.tree.map(jnp.zeros_like, full), jnp.full((2, m), 0.5), jnp.zeros((2, m), jnp.int32))
  score = np.full((2, m), 0.4, np.float32)
  score[0, 1] = score[1, 2] = 0.6
  after = select_best(before, full, jnp.asarray(7, jnp.int32), jnp.asarray(score), owner)
  np.testing.assert_array_equal(after.step, np.where(score > 0.5, 7, 0))
  # What a modality predicts depends on its own selection alone.
  for seed, chosen in ((0, 1), (1, 2)):
    for i, name in enumerate(spec.names):
      mine = jax.tree.leaves(after.params['encoders'][name])
      mine += [x[:, i] for x in jax.tree.leaves(after.params['heads'])]
      assert {float(x[seed].min()) for x in mine} == {float(i == chosen)}
      assert {float(x[seed].max()) for x in mine} == {float(i == chosen)}


def _same_model(a, b):
  return (a.module, a.options) == (b.module, b.options)


def test_programs_are_shared_by_methods_that_differ_in_their_data_and_by_no_others():
  recipe, spec = small_recipe(), small_spec()
  trained = [name for name, method in METHODS.items() if method.module is not None]
  keys = {name: program_key(find_method(name), recipe, spec) for name in trained}
  assert {
    frozenset(pair)
    for pair in itertools.combinations(trained, 2)
    if keys[pair[0]] == keys[pair[1]] and hash(keys[pair[0]]) == hash(keys[pair[1]])
  } == {frozenset((a, b)) for a, b in itertools.combinations(trained, 2) if _same_model(METHODS[a], METHODS[b])}
  assert _same_model(METHODS['concat'], METHODS['concat+dropout'])
  # Another spec or other sizes are other programs.
  others = (
    program_key(METHODS['concat'], small_recipe(model__width=16), spec),
    program_key(METHODS['concat'], recipe, small_spec('binary')),
  )
  assert keys['concat'] not in others
  # So are other numbers of runs, and settings that the program takes as numbers.
  runs = Runs((0, 1), (('model.dropout', (0.1, 0.2)),))
  assert program_key(METHODS['concat'], recipe, spec, Runs((5, 6))) == keys['concat']
  assert program_key(METHODS['concat'], recipe, spec, Runs((5,))) != keys['concat']
  assert program_key(METHODS['concat'], recipe, spec, runs) != keys['concat']
