"""The pipeline: each epoch every sample once, exact resumption, the same global batch on any number of processes."""

import dataclasses

import jax
import numpy as np
import pytest
from small_data import SPEC, small_dataset
from small_runs import numpy_batches

from dream_jax.data.pipeline import device_prefetch, eval_batches, train_batches
from dream_jax.data.prepare import prepare
from dream_jax.data.sampler import batch_rows, permute
from dream_jax.errors import UserError
from dream_jax.missingness import counter, fills
from dream_jax.missingness.counter import NUMPY
from dream_jax.missingness.missing import Missing, describe, draw_keep

INJECT = Missing('modality', 0.6, 'uniform', fills=('zeros', 'noise', 'swap'))
N = 40


@pytest.fixture(scope='module')
def prepared():
  """The label of each training sample is its row, so that batches show what was read."""
  dataset = small_dataset(train=N)
  train = dataclasses.replace(dataset.splits['train'], label=np.arange(N, dtype=np.int32))
  return prepare(
    dataclasses.replace(dataset, splits={**dataset.splits, 'train': train}), train_missing=Missing(), seed=0
  )


def _train(prepared, **changes):
  arguments = {
    'inject': INJECT,
    'batch_size': 8,
    'seeds': (3, 11),
    'start_step': 0,
    'num_steps': 10,
    'steps_per_call': 4,
    'with_clean': True,
  }
  return list(train_batches(prepared, **{**arguments, **changes}))


@pytest.fixture(scope='module')
def usual(prepared):
  """The batches of `_train` without changes, made once: tracing them takes longer than all they are compared with."""
  return _train(prepared)


@pytest.fixture(scope='module')
def complete(prepared):
  """Three times as many, of which nothing is missing, made once as well."""
  return _train(prepared, inject=Missing(), num_steps=30)


def _join(batches, axis=0):
  return jax.tree.map(lambda *xs: np.concatenate(xs, axis), *batches)


def _assert_same(a, b):
  jax.tree.map(np.testing.assert_array_equal, a, b)


@pytest.mark.parametrize('n', [1, 2, 3, 7, 40, 1000])
def test_an_epoch_is_a_permutation(n):
  for seed in range(5):
    fixed = np.full(n, seed, np.uint32)
    rows = permute(np.arange(n), n, seed=fixed, epoch=fixed * 0 + 2, backend=NUMPY)
    np.testing.assert_array_equal(np.sort(rows), np.arange(n))


@pytest.mark.parametrize('n', [5, 7, 37])
def test_orders_are_drawn_uniformly(n):
  draws = 40000
  seed, epoch = np.arange(draws) % 200, np.arange(draws) // 200
  first, last = (
    permute(np.full(draws, p), n, seed=seed.astype(np.uint32), epoch=epoch.astype(np.uint32), backend=NUMPY)
    for p in (0, n - 1)
  )
  counts = np.bincount(first * n + last, minlength=n * n).reshape(n, n)[~np.eye(n, dtype=bool)]
  expected, freedom = draws / (n * (n - 1)), n * (n - 1) - 1
  chi2 = ((counts - expected) ** 2 / expected).sum()
  assert chi2 < freedom + 4 * np.sqrt(2 * freedom)


@pytest.mark.parametrize('name', ['tensorflow', 'jax'])
def test_all_backends_read_the_same_rows(name):
  b = counter.backend(name)

  def rows(b):
    arrays = [b.asarray(x) for x in (np.arange(5, 9, dtype=np.int32), np.arange(8, dtype=np.int32))]
    return batch_rows(*arrays, b.uint32(np.array([3, 11])), n=13, batch_size=8, backend=b)

  for x, y in zip(rows(NUMPY), jax.jit(lambda: rows(b))() if name == 'jax' else rows(b), strict=True):
    np.testing.assert_array_equal(x, np.asarray(y))


def test_batches_of_numpy_are_the_same(prepared, usual):
  """Other tests train on these."""
  same = numpy_batches(
    prepared, inject=INJECT, batch_size=8, seeds=(3, 11), num_steps=10, steps_per_call=4, with_clean=True
  )
  for x, y in zip(usual, same, strict=True):
    _assert_same(x, y)
    assert jax.tree.map(lambda a: a.dtype, x) == jax.tree.map(lambda a: a.dtype, y)


def test_shapes_and_the_shorter_last_call(prepared, usual):
  batches = usual
  assert [len(b['label']) for b in batches] == [4, 4, 2]
  assert batches[0]['inputs']['audio'].shape == (4, 2, 8, 7, 5)
  assert batches[0]['clean']['text'].shape == (4, 2, 8, 6)
  assert batches[0]['inputs']['audio_length'].shape == batches[0]['label'].shape == (4, 2, 8)
  assert batches[0]['kept'].shape == (4, 2, 8, 4)
  assert batches[0]['kept'].dtype == batches[0]['inputs']['face'].dtype == np.float32
  assert 'clean' not in _train(prepared, with_clean=False, inject=Missing(), num_steps=1)[0]


def test_each_seed_visits_every_sample_once_an_epoch(complete):
  label = _join(complete)['label']
  orders = [label[:, s].reshape(6, N) for s in range(2)]
  for order in orders:
    np.testing.assert_array_equal(np.sort(order, 1), np.broadcast_to(np.arange(N), (6, N)))
    assert all((order[i] != order[j]).any() for i in range(6) for j in range(i))
  assert (orders[0] != orders[1]).any()


@pytest.mark.parametrize(('start', 'per_call'), [(1, 3), (9, 100)])
def test_any_step_can_be_the_first(prepared, usual, start, per_call):
  whole = _join(usual)
  rest = _join(_train(prepared, start_step=start, num_steps=10 - start, steps_per_call=per_call))
  _assert_same(jax.tree.map(lambda x: x[start:], whole), rest)


def test_a_seed_does_not_depend_on_its_company(prepared, usual):
  together, alone = _join(usual), _join(_train(prepared, seeds=(11,)))
  _assert_same(jax.tree.map(lambda x: x[:, 1:], together), alone)


def test_processes_cut_the_global_batch(prepared, usual):
  part = _join(_train(prepared, rows=slice(3, 7)))
  _assert_same(jax.tree.map(lambda x: x[:, :, 3:7], _join(usual)), part)


@pytest.mark.parametrize(
  'inject', [Missing(), INJECT, Missing('frames', 0.5), Missing('block', 0.5, 'uniform')], ids=describe
)
def test_a_batch_is_what_numpy_makes_of_its_rows(prepared, usual, complete, inject):
  split = prepared.splits['train']
  known = {INJECT: usual, Missing(): complete}
  batch = _join(known[inject] if inject in known else _train(prepared, inject=inject))
  for step in (0, 6, 9):
    for s, seed in enumerate((3, 11)):
      rows = batch['label'][step, s]
      clean = {k: v[rows] for k, v in split.features.items()}
      epoch = ((step * 8 + np.arange(8)) // N).astype(np.uint32)
      drawn = {'seed': seed, 'keys': split.keys[rows], 'epoch': epoch, 'backend': NUMPY}
      lengths = {'audio': clean['audio_length'], 'text': clean['text_length']}
      keep = draw_keep(inject, SPEC, lengths=lengths, **drawn)
      inputs = fills.apply_missing(
        inject, SPEC, clean, zero=prepared.zero, donors=split.features, rows=rows, keep=keep, **drawn
      )
      at = jax.tree.map(lambda x, step=step, s=s: x[step, s], batch)
      _assert_same(at['clean'], clean)
      _assert_same(at['inputs'], inputs)
      np.testing.assert_allclose(at['kept'], keep.share, rtol=1e-6)


def test_every_epoch_loses_something_else(usual):
  batch = _join(usual)
  label, kept = batch['label'][:, 0].reshape(2, N), batch['kept'][:, 0].reshape(2, N, 4)
  first, second = (k[np.argsort(r)] for k, r in zip(kept, label, strict=True))
  assert (first != second).any(1).mean() > 0.3
  assert (kept.max(2) == 1).all()


@pytest.mark.parametrize(
  'missing', [Missing(), Missing('modality', 0.5, fills=('swap',)), Missing('frames', 0.4)], ids=describe
)
def test_evaluation_sees_every_sample_once(prepared, missing):
  split = prepared.splits['test']
  batches = list(eval_batches(split, prepared, missing=missing, seed=1, batch_size=8))
  assert [len(b['index']) for b in batches] == [8, 8, 8]
  joined = _join(batches)
  real = joined['weight'] == 1
  np.testing.assert_array_equal(joined['index'][real], np.arange(23))
  np.testing.assert_array_equal(joined['weight'][~real], [0])
  assert (joined['index'][~real] == 0).all()
  np.testing.assert_array_equal(joined['label'], split.label[joined['index']])
  whole = next(iter(eval_batches(split, prepared, missing=missing, seed=1, batch_size=23)))
  _assert_same(jax.tree.map(lambda x: x[real], joined), whole)
  if missing.kind == 'none':
    _assert_same(whole['inputs'], split.features)
    assert (whole['kept'] == 1).all()
  else:
    assert (whole['kept'] < 1).any()


def test_evaluation_is_cut_between_processes(prepared):
  arguments = {'missing': INJECT, 'seed': 1, 'batch_size': 12}
  split = prepared.splits['test']
  parts = [list(eval_batches(split, prepared, **arguments, rows=slice(i, i + 4))) for i in (0, 4, 8)]
  assert {len(p) for p in parts} == {2}
  for whole, *cut in zip(eval_batches(split, prepared, **arguments), *parts, strict=True):
    _assert_same(whole['inputs'], _join([part['inputs'] for part in cut]))
    for part in cut:  # What is known without making the inputs, everybody knows of all.
      _assert_same({k: v for k, v in part.items() if k != 'inputs'}, {k: v for k, v in whole.items() if k != 'inputs'})


def test_evaluation_and_training_lose_different_things_under_one_seed(prepared):
  train = prepared.splits['train']
  missing = Missing('modality', 0.5)
  evaluated = next(iter(eval_batches(train, prepared, missing=missing, seed=3, batch_size=N)))['kept']
  batch = _join(_train(prepared, inject=missing, seeds=(3,), num_steps=5))
  trained = batch['kept'].reshape(N, 4)[np.argsort(batch['label'].ravel())]
  assert 0.3 < (evaluated == trained).mean() < 0.7


def test_sizes_that_do_not_fit_are_errors(prepared):
  with pytest.raises(UserError, match='seeds'):
    _train(prepared, seeds=())
  with pytest.raises(UserError, match='rate'):
    _train(prepared, inject=Missing('modality', 1.0))
  one = prepare(small_dataset(test=1), train_missing=Missing(), seed=0)
  with pytest.raises(UserError, match='needs 2'):
    eval_batches(one.splits['test'], one, missing=INJECT, seed=0, batch_size=8)


def test_prefetch_stays_ahead_and_in_order():
  put = []

  def start(x):
    put.append(x)
    return -x

  found = device_prefetch(iter(range(6)), start, depth=2)
  assert next(found) == 0
  assert put == [0, 1, 2]
  assert list(found) == [-1, -2, -3, -4, -5]
  assert list(device_prefetch(iter([7]), start)) == [-7]
