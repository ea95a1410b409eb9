"""A run whose numbers stop being finite stops at once, says so, and leaves what was good before it."""

import dataclasses
import json
import shutil

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from small_runs import optax_promotes, small_prepared, small_recipe, small_trainer  # noqa: F401

from dream_jax.errors import Diverged
from dream_jax.training import divergence
from dream_jax.training.runs import Runs
from dream_jax.training.step import Selection
from dream_jax.workdir.checkpoints import Checkpoints

_METHOD = 'concat+dropout'


@pytest.fixture(scope='module')
def prepared():
  return small_prepared('multiclass', ('face', 'pose'))


@pytest.fixture(scope='module')
def made(prepared):
  """A compiled trainer: 12 steps in calls of 2, validation every 4, two seeds, a checkpoint after every call."""
  return small_trainer(_METHOD, small_recipe(mesh__seed=2, seed=3, train__checkpoint_seconds=0.0), prepared)


@pytest.fixture
def trainer(made, monkeypatch):
  """The same, and what is patched on it is taken back."""
  monkeypatch.setattr(made, 'batches', made.batches)
  return made


def _saved(workdir, trainer, kind='restore_latest'):
  with Checkpoints(workdir / 'checkpoints' / _METHOD, read_only=True) as checkpoints:
    abstract = trainer.programs.abstract_state
    return getattr(checkpoints, kind)(abstract if kind == 'restore_latest' else abstract.params)


def _poison(trainer, monkeypatch, *, call, seeds, value=np.nan):
  """Puts a value that is not finite into the inputs of some seeds in one call of the six."""
  batches = type(trainer).batches

  def poisoned(start_step):
    for number, batch in enumerate(batches(trainer, start_step), start_step // trainer.schedule.per_call + 1):
      if number == call:
        bad = np.array(batch['inputs']['pose'])
        bad[:, seeds] = value
        inputs = {**batch['inputs'], 'pose': jax.device_put(bad, batch['inputs']['pose'].sharding)}
        batch = {**batch, 'inputs': inputs}
      yield batch

  monkeypatch.setattr(trainer, 'batches', poisoned)


def _refused(trainer, workdir, **how):
  with pytest.raises(Diverged) as caught:
    trainer.run(str(workdir), **how)
  assert '\n' not in str(caught.value)
  return str(caught.value)


def _assert_equal(a, b):
  jax.tree.map(np.testing.assert_array_equal, a, b)


@pytest.fixture(scope='module')
def whole(made, tmp_path_factory):
  """(workdir, result) of a run that went well."""
  workdir = tmp_path_factory.mktemp('whole')
  return workdir, made.run(str(workdir))


def test_it_stops_at_once_names_the_seed_and_keeps_what_was_good(trainer, whole, tmp_path, monkeypatch):
  with monkeypatch.context() as patch:
    _poison(trainer, patch, call=4, seeds=[1])
    told = _refused(trainer, tmp_path)
    for part in (
      f'{_METHOD} diverged in steps 7 to 8 of 12: not finite for seed 4 (1 of 2): ',
      ': loss, task, gradient_norm, parameters; earlier checkpoints stay',
      'lower config.optimizer.learning_rate (0.003 now) in another --workdir',
      'dream_jax.datacheck',
    ):
      assert part in told
    step, state = _saved(tmp_path, trainer)
    assert step == 6
    assert all(np.isfinite(x).all() for x in jax.tree.leaves((state.params, state.average, state.best.params)))
    logged = [json.loads(line) for line in (tmp_path / 'metrics.jsonl').read_text().splitlines()]
    assert logged[-1]['step'] == 8
    assert logged[-1]['loss'][0] is not None
    assert logged[-1]['loss'][1] is None
    # Again from the checkpoint, and from the start: the same line.
    assert _refused(trainer, tmp_path) == told
    assert _refused(trainer, tmp_path / 'new') == told
    assert _saved(tmp_path, trainer)[0] == 6
  # Whatever was wrong with the data is mended: it goes on as if nothing had been.
  result = trainer.run(str(tmp_path))
  _assert_equal(result.best, whole[1].best)
  _assert_equal(_saved(tmp_path, trainer)[1], _saved(whole[0], trainer)[1])
  assert (tmp_path / 'metrics.jsonl').read_bytes() == (whole[0] / 'metrics.jsonl').read_bytes()


@pytest.mark.parametrize('call', [1, 2, 6])
def test_the_first_and_the_last_call_and_that_of_a_reading_are_no_exceptions(trainer, tmp_path, monkeypatch, call):
  _poison(trainer, monkeypatch, call=call, seeds=[0, 1], value=np.inf)
  told = _refused(trainer, tmp_path)
  assert f'in steps {2 * call - 1} to {2 * call} of 12' in told
  assert 'not finite for seeds 3, 4 (2 of 2): loss' in told
  found = _saved(tmp_path, trainer)
  assert (0 if found is None else found[0]) == 2 * call - 2
  assert _saved(tmp_path, trainer, 'restore_best') is None


def test_parameters_that_are_not_finite_are_not_saved_though_the_loss_is(trainer, tmp_path, monkeypatch):
  advance = type(trainer).advance

  def overflow(state, batch):
    state, terms = advance(trainer, state, batch)
    if int(state.step) == 8:
      average = jax.tree.map(lambda x: jax.device_put(x.at[0].set(jnp.inf), x.sharding), state.average)
      state = dataclasses.replace(state, average=average)
    return state, terms

  monkeypatch.setattr(trainer, 'advance', overflow)
  assert 'in steps 7 to 8 of 12: not finite for seed 3 (1 of 2): parameters;' in _refused(trainer, tmp_path)
  step, state = _saved(tmp_path, trainer)
  assert step == 6
  assert all(np.isfinite(x).all() for x in jax.tree.leaves(state.best.params))


def test_a_learning_rate_far_too_high_is_named(prepared, tmp_path):
  recipe = small_recipe(num_seeds=1, optimizer__learning_rate=100.0, optimizer__weight_decay=1e4)
  trainer = small_trainer('concat', recipe, prepared, num_devices=1)
  told = _refused(trainer, tmp_path)
  assert 'concat diverged in steps' in told
  assert 'of 12: not finite for seed 0 (1 of 1): loss, task, gradient_norm' in told
  assert 'learning_rate (100 now)' in told
  assert not (tmp_path / 'checkpoints' / 'concat' / 'state').exists()


def test_a_state_an_older_program_saved_is_refused_too(trainer, tmp_path):
  trainer.run(str(tmp_path), max_steps=8)
  step, state = _saved(tmp_path, trainer)
  bad = jax.tree.map(lambda x: x.at[1].set(jnp.nan), state.average)
  for folder in ('old', 'blind'):
    (tmp_path / folder).mkdir()
    shutil.copy(tmp_path / 'metrics.jsonl', tmp_path / folder)
  with Checkpoints(tmp_path / 'old' / 'checkpoints' / _METHOD) as checkpoints:
    checkpoints.save(step, dataclasses.replace(state, average=bad))
  assert 'before step 9 of 12: not finite for seed 4 (1 of 2): parameters;' in _refused(trainer, tmp_path / 'old')
  with Checkpoints(tmp_path / 'blind' / 'checkpoints' / _METHOD) as checkpoints:
    score = state.best.score.at[0].set(-jnp.inf)
    checkpoints.save(step, dataclasses.replace(state, best=dataclasses.replace(state.best, score=score)))
  assert 'before step 9 of 12: not finite for seed 3 (1 of 2): validation_score;' in _refused(
    trainer, tmp_path / 'blind'
  )


def test_a_run_of_which_no_reading_is_finite_is_refused_at_the_first(trainer, tmp_path, monkeypatch):
  monkeypatch.setattr(trainer, 'score', lambda params, split: np.float32([0.5, -np.inf]))
  assert 'at step 4 of 12: not finite for seed 4 (1 of 2): validation_score;' in _refused(trainer, tmp_path)


def test_a_search_goes_on_without_it_and_the_others_are_as_they_were(trainer, whole, tmp_path, monkeypatch):
  _poison(trainer, monkeypatch, call=4, seeds=[1])
  result = trainer.run(str(tmp_path / 'search'), may_diverge=True)
  np.testing.assert_array_equal(result.best.score, [whole[1].best.score[0], -np.inf])
  np.testing.assert_array_equal(result.best.step, [whole[1].best.step[0], -1])
  first = lambda tree: jax.tree.map(lambda x: np.asarray(x)[0], tree)  # noqa: E731
  _assert_equal(first(result.best.params), first(whole[1].best.params))
  assert all(np.isfinite(x).all() for x in jax.tree.leaves(result.best.params))
  # Killed after that and gone on with, it is still out.
  trainer.run(str(tmp_path / 'killed'), may_diverge=True, max_steps=10)
  again = trainer.run(str(tmp_path / 'killed'), may_diverge=True)
  _assert_equal(again.best, result.best)


def test_a_run_that_diverged_is_out_though_its_parameters_are_finite_again(trainer, tmp_path, monkeypatch):
  advance = type(trainer).advance

  def loud(state, batch):
    state, terms = advance(trainer, state, batch)
    return state, {**terms, 'loss': terms['loss'].at[0].set(jnp.inf)} if int(state.step) == 2 else terms

  monkeypatch.setattr(trainer, 'advance', loud)
  trainer.run(str(tmp_path), may_diverge=True, max_steps=2)
  result = trainer.run(str(tmp_path), may_diverge=True)
  np.testing.assert_array_equal(np.isfinite(result.best.score), [False, True])


def test_what_is_not_finite_is_found_in_any_shape():
  pairs = np.array([[1.0, np.nan], [1.0, 2.0], [np.inf, 0.0]])
  found = divergence.not_finite({'a': np.ones(3), 'b': pairs, 'c': np.array([0.0, -np.inf, 0.0])})
  assert {name: runs.tolist() for name, runs in found.items()} == {'b': [True, False, True], 'c': [False, True, False]}


def test_separate_models_of_a_run_are_forgotten_together():
  selection = Selection({}, jnp.ones((2, 3)), jnp.full((2, 3), 4, jnp.int32))
  after = divergence.forget(selection, np.array([False, True]))
  np.testing.assert_array_equal(after.score, [[1] * 3, [-np.inf] * 3])
  np.testing.assert_array_equal(after.step, [[4] * 3, [-1] * 3])
  assert after.score.dtype == selection.score.dtype
  assert after.step.dtype == selection.step.dtype


def test_the_rate_of_a_search_is_that_of_the_run_that_diverged():
  runs = Runs((0, 0, 1), (('optimizer.learning_rate', (0.1, 5.0, 0.2)),))
  found = {'task': np.array([True, False, True])}
  told = str(divergence.refusal('concat', 'in steps 1 to 2 of 4', found, runs, small_recipe()))
  assert 'not finite for seeds 0, 1 (2 of 3): task;' in told
  assert '(0.2 now)' in told
