"""Training is one history: stopped, killed or run alone, a seed goes through the same steps to the same bits."""

import json
import os
import random
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path
from unittest import mock

import compile_cache
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from run_places import run_folder
from small_runs import FAST_COMPILE, optax_promotes, small_prepared, small_recipe, small_trainer  # noqa: F401

from dream_jax.models.dream.dream import Dream
from dream_jax.models.registry import METHODS, find_method
from dream_jax.parallel.mesh import make_mesh
from dream_jax.training import feed, programs, train
from dream_jax.training.feed import Feed
from dream_jax.training.train import Trainer, make_schedule, schedule_for
from dream_jax.workdir.checkpoints import Checkpoints

_NAMES = ('face', 'pose')
_COMPILE_EVENT = '/jax/core/compile/backend_compile_duration'


@pytest.fixture(scope='module')
def prepared():
  return small_prepared('multiclass', _NAMES)


def _compile_fast(patch):
  for module in (programs, feed):
    patch.setattr(module, 'compiler_options', lambda **_: FAST_COMPILE)


def _trainer(name, recipe, prepared, **rest):
  return Trainer(find_method(name), recipe, Feed(recipe, prepared), **rest)


@pytest.fixture(scope='module')
def trainer(prepared):
  """A compiled trainer: 12 steps in calls of 2, validation every 4, two seeds and two shares of the rows on a mesh."""
  made = small_trainer('dream', small_recipe(mesh__seed=2), prepared, num_devices=4)
  s = made.schedule
  assert (s.num_steps, s.eval_every, s.per_call) == (12, 4, 2)
  return made


@pytest.fixture(scope='module')
def whole(trainer, tmp_path_factory):
  """(workdir, result) of a run nobody disturbed."""
  workdir = tmp_path_factory.mktemp('whole')
  return workdir, trainer.run(str(workdir))


def _saved(trainer, workdir):
  """What the latest checkpoint holds, as NumPy."""
  with Checkpoints(workdir / 'checkpoints' / trainer.method.name, read_only=True) as checkpoints:
    return jax.tree.map(np.asarray, checkpoints.restore_latest(trainer.programs.abstract_state)[1])


def _assert_equal(a, b):
  assert jax.tree.structure(a) == jax.tree.structure(b)
  jax.tree.map(np.testing.assert_array_equal, a, b)


# More than once, on a reading and between two; the slow ones stop at every kind of place by itself.
@pytest.mark.parametrize('stops', [(4, 10), *(pytest.param((s,), marks=pytest.mark.slow) for s in (2, 6, 8))], ids=str)
def test_stopped_and_continued_equals_never_stopped(trainer, whole, tmp_path, stops):
  for stop in stops:
    trainer.run(str(tmp_path), max_steps=stop)
    assert int(_saved(trainer, tmp_path).step) == stop
  result = trainer.run(str(tmp_path))
  workdir, expected = whole
  _assert_equal(_saved(trainer, tmp_path), _saved(trainer, workdir))
  _assert_equal(result.best, expected.best)
  assert (tmp_path / 'metrics.jsonl').read_bytes() == (workdir / 'metrics.jsonl').read_bytes()


def test_a_method_with_settings_of_its_own_continues_too(prepared, tmp_path, capsys):
  trainer = small_trainer('concat+dropout[optimizer.learning_rate=0.01]', small_recipe(mesh__seed=2), prepared)
  trainer.run(str(tmp_path), max_steps=4)
  result = trainer.run(str(tmp_path))
  assert 'concat+dropout[optimizer.learning_rate=0.01]: continues at step 4 of 12' in capsys.readouterr().out
  _assert_equal(result.best, trainer.run(str(tmp_path)).best)


def test_what_has_a_closed_form_is_there_for_every_seed_and_stays(trainer, prepared, whole):
  fitted = Dream(prepared.spec).fitted(prepared.splits['train'].features, prepared.zero)
  known = fitted['recogniser']['detector']
  first = trainer.first_state()
  states = (first.params, first.average, first.best.params, _saved(trainer, whole[0]).params, whole[1].best.params)
  for params in states:
    for name, fit in known.items():
      found = params['recogniser']['detector'][name]
      # Averaging a constant rounds.
      jax.tree.map(lambda a, b: [np.testing.assert_allclose(x, b, rtol=1e-5) for x in a], found, fit)


def test_finished_run_comes_back_without_a_step(trainer, whole):
  workdir, expected = whole
  before = (workdir / 'metrics.jsonl').read_bytes()
  again = trainer.run(str(workdir))
  _assert_equal(again.best, expected.best)
  assert (workdir / 'metrics.jsonl').read_bytes() == before


def test_metrics_name_every_call_and_every_reading(trainer, whole):
  lines = [json.loads(line) for line in (whole[0] / 'metrics.jsonl').read_text().splitlines()]
  assert [line['step'] for line in lines if 'loss' in line] == [2, 4, 6, 8, 10, 12]
  assert [line['step'] for line in lines if 'validation_score' in line] == [4, 8, 12]
  for line in lines:
    for value in line.values():
      assert isinstance(value, (str, int)) or (len(value) == 2 and np.isfinite(value).all())
  state = _saved(trainer, whole[0])
  scores = np.array([line['validation_score'] for line in lines if 'validation_score' in line])
  np.testing.assert_allclose(state.best.score, scores.max(0), rtol=1e-6)


def test_nothing_compiles_after_the_trainer_is_made(trainer, whole, tmp_path):
  """Neither a fresh run nor one that starts from a restored state, whose types must be those of a fresh one."""
  del whole  # Whatever small programs the loop itself needs were compiled there.
  compiled = []

  def listen(event, duration, **_):
    if event == _COMPILE_EVENT:
      compiled.append(duration)

  jax.monitoring.register_event_duration_secs_listener(listen)
  try:
    jax.jit(lambda x: x * 3 + 1)(jnp.ones(7)).block_until_ready()
    assert compiled, 'the listener hears nothing'
    compiled.clear()
    trainer.run(str(tmp_path), max_steps=6)
    trainer.run(str(tmp_path))
  finally:
    jax.monitoring.unregister_event_duration_listener(listen)
  assert not compiled


def test_selection_keeps_the_best_reading_of_each_seed(trainer, whole, tmp_path, monkeypatch):
  del whole
  readings = iter(np.array([[0.5, 0.9], [0.8, np.nan], [0.1, 0.7]], np.float32))
  asked, at = [], {}

  def score(params, split):
    asked.append((split, jax.tree.map(np.asarray, params)))
    return next(readings)

  monkeypatch.setattr(trainer, 'score', score)
  for step in (4, 8, 12):
    result = trainer.run(str(tmp_path), max_steps=step)
    at[step] = _saved(trainer, tmp_path).average
  _assert_equal(asked, [('validation', at[step]) for step in (4, 8, 12)])
  np.testing.assert_array_equal(result.best.step, [8, 4])
  np.testing.assert_array_equal(result.best.score, np.float32([0.8, 0.9]))
  wanted = jax.tree.map(lambda a, b: np.stack([a[0], b[1]]), at[8], at[4])
  _assert_equal(result.best.params, wanted)
  with Checkpoints(tmp_path / 'checkpoints' / 'dream', read_only=True) as checkpoints:
    _assert_equal(
      checkpoints.restore_best(trainer.programs.abstract_state.params)[1], jax.tree.map(jnp.asarray, wanted)
    )


@pytest.mark.parametrize('task', ['regression', 'multiclass'])
def test_a_score_is_the_mean_over_draws_of_what_is_missing(task, monkeypatch):
  monkeypatch.setattr(train, 'compile_programs', lambda *_, **__: mock.Mock(compile_seconds=0.0, mesh=make_mesh(1, -1)))
  data = small_prepared(task, _NAMES)
  trainer, asked = _trainer('dream', small_recipe(train__validation_draws=3), data), []
  label = data.splits['validation'].label

  def split(params, inputs, name, *, missing, seed, only):
    del params, inputs, only
    asked.append((name, missing, seed))
    return {'prediction': np.random.default_rng(seed).normal(size=(2, len(label), data.spec.num_outputs))}

  trainer.programs.predictor.split = split
  found, wanted = trainer.score(None, 'validation'), []
  for draw in range(3):
    prediction = np.random.default_rng(trainer.recipe.seed + draw).normal(size=(2, len(label), data.spec.num_outputs))
    right = -np.abs(prediction[..., 0] - label) if task == 'regression' else prediction.argmax(-1) == label
    wanted.append(right.mean(1))
  np.testing.assert_allclose(found, np.mean(wanted, axis=0), rtol=1e-5)
  assert asked == [('validation', trainer.inject, trainer.recipe.seed + draw) for draw in range(3)]


@pytest.mark.slow
def test_seed_of_a_vectorised_run_is_the_seed_alone(trainer, prepared, tmp_path, monkeypatch):
  """To a tolerance: other numbers of seeds and devices make another compiled program, which adds the same numbers in
  another order; Adam then divides by small ones."""
  _compile_fast(monkeypatch)
  single = _trainer('dream', small_recipe(seed=1, num_seeds=1), prepared)
  single.run(str(tmp_path), max_steps=single.schedule.per_call)
  state = _saved(single, tmp_path)
  trainer_dir = tmp_path / 'two'
  trainer.run(str(trainer_dir), max_steps=int(state.step))
  both = _saved(trainer, trainer_dir)
  for a, b in zip(jax.tree.leaves(state.params), jax.tree.leaves(both.params), strict=True):
    np.testing.assert_allclose(a[0], b[1], rtol=1e-3, atol=2e-4)
  started = jax.tree.map(np.asarray, trainer.programs.create(trainer.seeds).params)
  moved = [
    np.abs(a[1] - b[1]).max() for a, b in zip(jax.tree.leaves(started), jax.tree.leaves(both.params), strict=True)
  ]
  assert max(moved) > 2e-3  # ten times the tolerance, so equality says something


def test_seeds_differ(whole):
  leaves, _ = jax.tree_util.tree_flatten_with_path(whole[1].best.params)
  drawn = [p for path, p in leaves if 'typicality' not in jax.tree_util.keystr(path) and p.ndim > 2 and p[0].size > 8]
  assert drawn
  assert not any(np.array_equal(p[0], p[1]) for p in drawn)


@pytest.mark.slow
def test_programs_of_another_method_train_as_ones_own(prepared, tmp_path, monkeypatch):
  _compile_fast(monkeypatch)
  recipe = small_recipe(train__epochs=1, train__num_evals=1)
  own = _trainer('concat+dropout', recipe, prepared)
  lent = _trainer('concat+dropout', recipe, prepared, programs=_trainer('concat', recipe, prepared).programs)
  assert own.compile_seconds > lent.compile_seconds == 0
  results = [trainer.run(str(tmp_path / name)) for name, trainer in (('own', own), ('lent', lent))]
  _assert_equal(results[0].best, results[1].best)


@pytest.mark.parametrize('epochs', [1, 3, 7])
@pytest.mark.parametrize('evals', [1, 2, 5, 1000])
@pytest.mark.parametrize('bytes_a_call', [1, 30000, 10**9])
def test_schedule_comes_out_even_and_gives_every_epoch(prepared, epochs, evals, bytes_a_call, monkeypatch):
  monkeypatch.setattr(train, '_CALL_BYTES', bytes_a_call)
  s = make_schedule(small_recipe(train__epochs=epochs, train__num_evals=evals), prepared, 2)
  least = epochs * len(prepared.splits['train']) // 8
  assert s.num_steps >= least
  assert s.num_steps % s.eval_every == 0
  assert s.eval_every % s.per_call == 0
  assert s.num_steps // s.eval_every == min(evals, least)
  assert bytes_a_call > 1 or s.per_call == 1


def test_what_is_left_of_an_epoch_counts(prepared):
  recipe = small_recipe(train__epochs=4, train__num_evals=1)
  assert schedule_for(recipe, prepared.spec, 15, 2).num_steps == 4 * 15 // 8


def test_few_samples_are_passed_more_often(prepared):
  recipe = small_recipe(train__epochs=4, train__num_evals=5, train__least_steps=100)
  assert schedule_for(recipe, prepared.spec, 15, 2).num_steps == 100
  assert schedule_for(recipe, prepared.spec, 8000, 2).num_steps == 4000


def test_every_method_has_the_same_budget(prepared, monkeypatch):
  monkeypatch.setattr(train, 'compile_programs', lambda *_, **__: mock.Mock(compile_seconds=0.0, mesh=make_mesh(1, -1)))
  recipe = small_recipe()
  trained = [name for name, method in METHODS.items() if method.module is not None]
  assert len({_trainer(name, recipe, prepared).schedule for name in trained}) == 1


_RUN = textwrap.dedent("""
  import sys
  sys.path[:0] = [{tests!r}, {root!r}]
  from small_runs import small_config, small_dataset
  from dream_jax.experiments import experiment, workbench
  workbench.load_dataset = lambda *a, **k: small_dataset('multiclass', ('face', 'pose'))
  config = small_config(
    controls=('majority',), train__epochs=40, train__num_evals=20, train__checkpoint_seconds=0.0, mesh__seed=2
  )
  experiment.train(config, sys.argv[1])
""")


def _start(workdir, root):
  code = _RUN.format(tests=str(root / 'tests'), root=str(root))
  return subprocess.Popen(
    [sys.executable, '-c', code, str(workdir)],
    stdout=subprocess.DEVNULL,
    stderr=subprocess.PIPE,
    text=True,
    cwd=root,
    env={**os.environ, **compile_cache.environment()},
  )


def _finish(process):
  _, errors = process.communicate(timeout=240)
  assert process.returncode == 0, errors[-2000:]


def _steps(workdir):
  paths = Path(workdir).glob('runs/*/metrics.jsonl')  # None before the run has begun.
  return [json.loads(line)['step'] for path in paths for line in path.read_bytes().split(b'\n')[:-1]]


def _without_times(content):
  if isinstance(content, dict):
    return {k: _without_times(v) for k, v in content.items() if not k.endswith('_seconds') and k != 'seal'}
  return [_without_times(v) for v in content] if isinstance(content, list) else content


def _best(workdir):
  with Checkpoints(run_folder(workdir, 'dream') / 'checkpoints' / 'dream', read_only=True) as checkpoints:
    return checkpoints.restore_best()


@pytest.mark.slow
def test_killed_at_any_step_and_run_again_gives_the_same_bits(root, tmp_path):
  calm = _start(tmp_path / 'calm', root)
  _finish(calm)
  last = max(_steps(tmp_path / 'calm'))
  step = random.SystemRandom().randrange(1, last // 2)
  killed = _start(tmp_path / 'killed', root)
  deadline = time.monotonic() + 240
  while max(_steps(tmp_path / 'killed'), default=-1) < step:
    assert killed.poll() is None, killed.stderr.read()[-2000:]
    assert time.monotonic() < deadline
    time.sleep(0.002)
  os.kill(killed.pid, signal.SIGKILL)
  killed.communicate()
  assert killed.returncode == -signal.SIGKILL
  reached = max(_steps(tmp_path / 'killed'))
  assert reached < last, f'the run was over before it was killed at step {step}'
  assert not (tmp_path / 'killed' / 'results.json').exists()
  _finish(_start(tmp_path / 'killed', root))
  assert _best(tmp_path / 'killed')[0] == _best(tmp_path / 'calm')[0] == last
  _assert_equal(_best(tmp_path / 'killed')[1], _best(tmp_path / 'calm')[1])
  results = [json.loads((tmp_path / name / 'results.json').read_text()) for name in ('killed', 'calm')]
  assert _without_times(results[0]) == _without_times(results[1])
  logs = [(run_folder(tmp_path / name, 'dream') / 'metrics.jsonl').read_bytes() for name in ('killed', 'calm')]
  assert logs[0] == logs[1]
