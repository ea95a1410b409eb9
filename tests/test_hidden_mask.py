"""No information about what is missing reaches a model: it is removed, its whereabouts changed, and not one bit moves.

A method that is told the mask does change, so these tests can fail.
"""

import dataclasses
import functools

import jax
import numpy as np
import pytest
from small_runs import (  # noqa: F401
  FAST_COMPILE,
  jit,
  numpy_batches,
  optax_promotes,
  small_dataset,
  small_prepared,
  small_recipe,
)

from dream_jax.data import pipeline
from dream_jax.data.pipeline import eval_batches, train_batches
from dream_jax.data.prepare import prepare
from dream_jax.evaluation.predict import EvalInputs, Predictor, label_scale
from dream_jax.missingness.counter import NUMPY
from dream_jax.missingness.missing import EVALUATE_EPOCH, PREPARE_EPOCH, Missing, draw_keep
from dream_jax.models.model import ORACLE_MASK
from dream_jax.models.registry import METHODS, build, find_method
from dream_jax.parallel.mesh import make_mesh
from dream_jax.training.step import create_optimizer, create_state, train_call

# One method of each module and its options: what is injected makes no other model.
_TRAINED = tuple(
  {(method.module, method.options): name for name, method in METHODS.items() if method.module is not None}.values()
)
_HIDDEN = tuple(name for name in _TRAINED if not METHODS[name].uses_oracle)
_ALL_FILLS = ('zeros', 'noise', 'mean', 'swap')
# Without swap: there a removed value legitimately lives on as the content of another sample.
_CONDITIONS = (
  Missing('modality', 0.6, fills=('zeros', 'noise', 'mean')),
  Missing('subset', kept=('text', 'pose'), fills=('noise',)),
  Missing('frames', 0.7, fills=('zeros', 'noise', 'mean')),
  Missing('block', 0.7, fills=('zeros', 'mean')),
)
_SEED = 3
_MESH = make_mesh(2, -1)


def _draw(missing, split, spec, epoch, seed=_SEED):
  lengths = {m.name: split.features[m.length_name] for m in spec.modalities if m.has_length}
  return draw_keep(missing, spec, lengths=lengths, seed=seed, keys=split.keys, epoch=epoch, backend=NUMPY)


def _with_removed_changed(split, spec, keep, value):
  """The split with other values wherever `keep` says removed; the lengths of wholly removed sequences too.

  Args:
    split: of a data set or of prepared data.
    spec: of it.
    keep: what stays.
    value: 'random' or 'nan' (tokens and lengths are random under either).
  """
  rng = np.random.default_rng(8)
  features = dict(split.features)
  changed = 0
  for m, modality in enumerate(spec.modalities):
    x = features[modality.name].copy()
    removed = ~keep.slots[:, m]
    if modality.has_length:
      length = features[modality.length_name]
      inside = np.arange(modality.shape[0]) < length[:, None]
      frames = keep.frames.get(modality.name, np.ones_like(inside))
      where = inside & (removed[:, None] | ~frames)
      other = np.where(removed, 1 + (length % modality.shape[0]), length).astype(np.int32)
      features[modality.length_name] = other
    else:
      where = removed
    if modality.kind == 'tokens':
      x[where] = rng.integers(2, modality.vocab_size, where.sum())
    else:
      x[where] = np.nan if value == 'nan' else rng.normal(50, 9, x[where].shape)
    features[modality.name] = x
    changed += where.sum()
  assert changed
  return dataclasses.replace(split, features=features)


def _random_params(abstract, seed=5):
  rng = np.random.default_rng(seed)
  return jax.tree.map(lambda p: rng.normal(scale=0.3, size=p.shape).astype(p.dtype), abstract)


@pytest.fixture(scope='module')
def prepared():
  return small_prepared('multiclass', train=16, validation=8, test=12)


@functools.cache
def _model(name):
  return build(
    find_method(name),
    small_prepared('multiclass', train=4, validation=4, test=4).spec,
    small_recipe(model__frames=True).model,
  )


def _abstract_params(name, prepared):
  def init(key):
    inputs = {k: np.asarray(x[:2]) for k, x in prepared.splits['train'].features.items()}
    told = {ORACLE_MASK: np.ones((2, prepared.spec.num_modalities), np.float32)}
    return _model(name).init({'params': key}, {**inputs, **told}, train=False)['params']

  one = jax.eval_shape(init, jax.random.key(0))
  return jax.tree.map(lambda p: jax.ShapeDtypeStruct((2, *p.shape), p.dtype), one)


@pytest.fixture(scope='module')
def predictor_of(prepared):
  @functools.cache
  def made(name):
    abstract, oracle = _abstract_params(name, prepared), bool(find_method(name).uses_oracle)
    inputs = EvalInputs(prepared, _MESH, batch_size=16)
    batch, rows = next(inputs.batches('test', Missing(), 0))
    batch = {**batch, **(inputs.told(rows) if oracle else {})}
    predictor = Predictor(_model(name), _MESH, abstract, batch, compiler_options=FAST_COMPILE, oracle=oracle)
    return predictor, _random_params(abstract)

  return made


def _lie_about_kept(monkeypatch):
  """Evaluation batches whose 'kept' is wrong from start to end."""
  honest = pipeline._eval_batches

  def lying(*args):
    for batch in honest(*args):
      yield {**batch, 'kept': np.float32(1) - batch['kept']}

  monkeypatch.setattr(pipeline, '_eval_batches', lying)


@pytest.mark.parametrize('missing', _CONDITIONS, ids=lambda m: m.kind)
def test_evaluation_inputs_hold_nothing_of_what_was_removed(prepared, missing):
  split = prepared.splits['test']
  keep = _draw(missing, split, prepared.spec, EVALUATE_EPOCH)
  # A swap donor's lengths are read for every fill, so here only contents change, not the lengths of removed slots.
  other = _with_removed_changed(split, prepared.spec, keep, 'random')
  lengths = {m.length_name: split.features[m.length_name] for m in prepared.spec.modalities if m.has_length}
  other = dataclasses.replace(other, features={**other.features, **lengths})
  for a, b in zip(
    eval_batches(split, prepared, missing=missing, seed=_SEED, batch_size=5),
    eval_batches(other, prepared, missing=missing, seed=_SEED, batch_size=5),
    strict=True,
  ):
    jax.tree.map(np.testing.assert_array_equal, a['inputs'], b['inputs'])


def _predicted(predictor, params, prepared, split, missing):
  """Outputs for a split that stands in the place of the test split."""
  inputs = EvalInputs(dataclasses.replace(prepared, splits={**prepared.splits, 'test': split}), _MESH, batch_size=16)
  return predictor.split(params, inputs, 'test', missing=missing, seed=_SEED)


@pytest.mark.parametrize('name', _TRAINED)
def test_outputs_do_not_depend_on_removed_values_or_on_the_mask(prepared, predictor_of, name, monkeypatch):
  predictor, params = predictor_of(name)
  split = prepared.splits['test']
  honest = [_predicted(predictor, params, prepared, split, missing) for missing in _CONDITIONS]
  _lie_about_kept(monkeypatch)
  told_a_lie, moved = [], []
  for missing, before in zip(_CONDITIONS, honest, strict=True):
    keep = _draw(missing, split, prepared.spec, EVALUATE_EPOCH)
    other = _with_removed_changed(split, prepared.spec, keep, 'random')
    lengths = {m.length_name: split.features[m.length_name] for m in prepared.spec.modalities if m.has_length}
    other = dataclasses.replace(other, features={**other.features, **lengths})
    after = _predicted(predictor, params, prepared, other, missing)
    told_a_lie.append(not np.array_equal(before.pop('kept'), after.pop('kept')))
    assert before.keys() == after.keys()
    moved.append(any(not np.array_equal(before[key], after[key]) for key in before))
  assert all(told_a_lie)
  # The positive control: who is told the mask, is told a lie and changes its mind.
  assert moved == [bool(METHODS[name].uses_oracle)] * len(_CONDITIONS)


# What the trainer itself removed may teach; whatever else a loss has, and every output, is blind to it.
_READS_CLEAN = {
  'dream': {'reconstruction', 'confidence'},
  'mmin': {'imagination', 'cycle'},
  'tfr-net': {'reconstruction'},
  'lnln': {'reconstruction'},
  'p-rmf': {'reconstruction'},
}
_READS_KEPT = {
  'dream': {*_READS_CLEAN['dream'], 'unimodal', 'coalition', 'recognition', 'frames'},
  'mmin': {'imagination', 'cycle'},
  'tfr-net': {'reconstruction'},
  'lnln': {'completeness', 'adversary'},
  'momke': {'unimodal'},
  'momke-blind': {'unimodal'},
}

_READS_FRAMES = {'dream': {'frames'}}


def _loss_of(name):
  model = _model(name)

  def run(params, batch, key):
    method = {'method': 'trace'} if name == 'dream' else {}
    rngs = {'dropout': key, 'draw': key}
    outputs = model.apply({'params': params}, batch['inputs'], train=True, rngs=rngs, **method)
    return outputs, model.loss(params, batch, key)

  return jit(run)


@pytest.mark.parametrize(
  'name', [n if n in ('dream', 'concat+dropout') else pytest.param(n, marks=pytest.mark.slow) for n in _TRAINED]
)
def test_training_outputs_and_task_losses_do_not_read_the_mask_or_the_clean_inputs(prepared, name):
  method = find_method(name)
  params = jax.tree.map(lambda p: p[0], _random_params(_abstract_params(name, prepared)))
  inject = Missing('modality', 0.7, 'uniform', parts=('frames', 'block'), fills=_ALL_FILLS)
  batches = numpy_batches(
    prepared, inject=inject, batch_size=8, seeds=(0,), num_steps=1, steps_per_call=1, with_clean=True
  )
  batch = jax.tree.map(lambda x: x[0, 0], next(batches))
  if method.uses_oracle:
    batch['inputs'] = {**batch['inputs'], ORACLE_MASK: batch['kept']}
  lie = np.roll(batch['kept'], 1, axis=1)  # still one slot kept in every row
  assert not np.array_equal(lie, batch['kept'])
  about_kept = {**batch, 'kept': lie}
  if method.uses_oracle:
    about_kept['inputs'] = {**batch['inputs'], ORACLE_MASK: lie}
  rng = np.random.default_rng(1)
  about_clean = {
    key: rng.permutation(x) if x.dtype == np.int32 else rng.normal(9, 5, x.shape).astype(np.float32)
    for key, x in batch['clean'].items()
  }
  about_frames = {**batch, 'kept_frames': {key: ~x for key, x in batch['kept_frames'].items()}}
  run = _loss_of(name)
  outputs, (_, terms) = run(params, batch, jax.random.key(0))
  lies = ((about_kept, _READS_KEPT), ({**batch, 'clean': about_clean}, _READS_CLEAN), (about_frames, _READS_FRAMES))
  for other, may_read in lies:
    others, (_, other_terms) = run(params, other, jax.random.key(0))
    same = _same(outputs, others)
    reading = {term for term in terms if not np.array_equal(terms[term], other_terms[term])}
    told = bool(method.uses_oracle) and other is about_kept
    assert same == (not told)
    # Equality, not inclusion: the supervision does read it, that is what it is for, and a lie that nobody reads would
    # prove nothing.
    assert reading == may_read.get(name, set()) | ({'task'} if told else set())


_INCOMPLETE = (
  Missing('modality', 0.6, fills=_ALL_FILLS),
  Missing('imbalanced', rates=(('audio', 0.8), ('pose', 0.5)), fills=('zeros', 'noise')),
  Missing('subset', kept=('audio', 'face'), fills=('zeros', 'mean')),
  Missing('frames', 0.6, fills=_ALL_FILLS),
  Missing('block', 0.6, fills=('noise', 'zeros')),
  Missing('modality', 0.6, parts=('frames', 'block'), fills=_ALL_FILLS),
)


@functools.cache
def _one_call(name):
  """One call of two steps of two seeds as the trainer makes it: prepared -> (losses, updated parameters)."""
  recipe, model = (
    small_recipe(inject__fills=_ALL_FILLS, inject__parts=('frames', 'block'), model__frames=True),
    _model(name),
  )
  optimizer = create_optimizer(recipe.optimizer, 10)
  seeds = np.array([0, 1], np.uint32)
  call = jit(lambda state, batch: train_call(lambda _: (model.gradient, optimizer), 0.99, state, batch, seeds, {}))
  shapes = {}

  def run(prepared):
    batch = next(
      train_batches(
        prepared,
        inject=recipe.inject.missing(),
        batch_size=8,
        seeds=(0, 1),
        start_step=0,
        num_steps=2,
        steps_per_call=2,
        with_clean=model.reads_clean,
      )
    )
    batch = {**batch, 'label': label_scale(prepared).standardise(batch['label'])}
    if not shapes:
      sample = jax.tree.map(lambda x: x[0, 0], batch['inputs'])
      shapes['state'] = jit(lambda s: create_state(model, optimizer, sample, s))(seeds)
    state, terms = call(shapes['state'], batch)
    return terms, state.params

  return run


def _changed(dataset, missing, value):
  """The data set with other values wherever `missing` removes something from training and validation."""
  splits = dict(dataset.splits)
  for split in ('train', 'validation'):
    keep = _draw(missing, splits[split], dataset.spec, PREPARE_EPOCH)
    splits[split] = _with_removed_changed(splits[split], dataset.spec, keep, value)
  return dataclasses.replace(dataset, splits=splits)


@pytest.fixture(scope='module')
def dataset():
  return small_dataset('multiclass', train=24, validation=8, test=4)


def _same(a, b):
  return all(np.array_equal(x, y) for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True))


@pytest.mark.parametrize('missing', _INCOMPLETE, ids=lambda m: m.kind)
@pytest.mark.parametrize('value', ['random', 'nan'])
def test_prepared_data_hold_nothing_of_what_was_removed(dataset, missing, value):
  def arrays(d, m):
    p = prepare(d, train_missing=m, seed=_SEED)
    return (
      {n: (s.features, s.label, s.extras) for n, s in p.splits.items()},
      p.statistics.mean,
      p.statistics.std,
      p.zero,
    )

  changed = _changed(dataset, missing, value)
  jax.tree.map(np.testing.assert_array_equal, arrays(dataset, missing), arrays(changed, missing))
  assert not _same(arrays(dataset, Missing()), arrays(changed, Missing()))


@pytest.mark.slow
def test_training_never_reads_what_its_data_lack(dataset):
  """The same, seen from the end: losses and updated parameters of a call of the train step."""
  missing = _INCOMPLETE[0]
  run = _one_call('dream')
  before = run(prepare(dataset, train_missing=missing, seed=_SEED))
  assert all(np.isfinite(x).all() for x in jax.tree.leaves(before))
  for value in ('random', 'nan'):
    after = run(prepare(_changed(dataset, missing, value), train_missing=missing, seed=_SEED))
    jax.tree.map(np.testing.assert_array_equal, before, after)
  # The positive control: were it not removed, the same change would show.
  assert not _same(before, run(prepare(_changed(dataset, missing, 'random'), train_missing=Missing(), seed=_SEED)))
