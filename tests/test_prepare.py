"""Preparation: statistics of the observed only, and no trace of what a training set lacks."""

import dataclasses

import numpy as np
import pytest
from small_data import SPEC, small_dataset

from dream_jax.data import prepare as prepare_module
from dream_jax.data.prepare import prepare, standardise
from dream_jax.errors import UserError
from dream_jax.missingness.counter import NUMPY
from dream_jax.missingness.missing import PREPARE_EPOCH, Missing, describe, draw_keep

ALL_FILLS = ('zeros', 'noise', 'swap', 'mean')
EXAMPLES = (
  Missing('modality', 0.5, fills=ALL_FILLS),
  Missing('modality', 0.9, 'uniform', fills=('swap',)),
  Missing('imbalanced', rates=(('audio', 0.9),), fills=('noise', 'swap')),
  Missing('subset', kept=('audio', 'pose'), fills=('zeros', 'noise', 'mean')),
  Missing('frames', 0.6, fills=ALL_FILLS),
  Missing('frames', 0.7, 'uniform', fills=('swap',)),
  Missing('block', 0.6, fills=ALL_FILLS),
)


def _keep(missing, split, seed):
  lengths = {m.name: split.features[m.length_name] for m in SPEC.modalities if m.has_length}
  return draw_keep(missing, SPEC, lengths=lengths, seed=seed, keys=split.keys, epoch=PREPARE_EPOCH, backend=NUMPY)


def _spoil(dataset, missing, seed, value):
  """The data set with all that goes missing changed: values, and lengths of whole sequences."""
  splits, count = dict(dataset.splits), 0
  for name in ('train', 'validation'):
    split = dataset.splits[name]
    keep = _keep(missing, split, seed)
    features = {k: v.copy() for k, v in split.features.items()}
    for m, modality in enumerate(SPEC.modalities):
      gone = ~keep.frames[modality.name] if modality.name in keep.frames else ~keep.slots[:, m]
      count += gone.sum()
      x = features[modality.name]
      x[gone] = 17 if modality.kind == 'tokens' else value
      if modality.has_length and not keep.frames:
        features[modality.length_name][gone] = 1
    splits[name] = dataclasses.replace(split, features=features)
  assert count
  return dataclasses.replace(dataset, splits=splits)


def _assert_same(a, b):
  for name, split in a.splits.items():
    other = b.splits[name]
    assert split.features.keys() == other.features.keys()
    for key, x in split.features.items():
      np.testing.assert_array_equal(x, other.features[key], err_msg=f'{name} {key}')
    np.testing.assert_array_equal(split.label, other.label)
    assert split.extras.keys() == other.extras.keys()
    for key, x in split.extras.items():
      np.testing.assert_array_equal(x, other.extras[key])
  for key in a.statistics.mean:
    np.testing.assert_array_equal(a.statistics.mean[key], b.statistics.mean[key])
    np.testing.assert_array_equal(a.statistics.std[key], b.statistics.std[key])
    np.testing.assert_array_equal(a.zero[key], b.zero[key])


def test_inputs_of_a_notebook_are_checked_by_name_size_and_vocabulary():
  dataset = small_dataset()
  prepared = prepare(dataset, train_missing=Missing(), seed=0)
  raw = {name: x[:3].copy() for name, x in dataset.splits['test'].features.items()}

  def message(**changes):
    with pytest.raises(UserError) as caught:
      standardise(prepared.statistics, prepared.spec, raw | changes)
    return str(caught.value)

  assert "unknown input 'audio_len'; did you mean audio_length" in message(audio_len=raw['audio_length'])
  assert 'audio 3, text 3, face 3, pose 2' in message(pose=raw['pose'][:2])
  for wrong in (50, -1):
    text = raw['text'].copy()
    text[1, 0] = wrong
    assert f"input 'text' has token id {wrong}; expected 0 to 49" in message(text=text)


def test_without_lengths_zeros_and_nan_at_the_end_are_padding():
  dataset = small_dataset()
  prepared = prepare(dataset, train_missing=Missing(), seed=0)
  raw = {name: x[:5].copy() for name, x in dataset.splits['test'].features.items()}
  wanted = standardise(prepared.statistics, prepared.spec, raw)
  bare = {name: raw[name] for name in prepared.spec.names}
  bare['audio'][0, raw['audio_length'][0] :] = np.nan
  found = standardise(prepared.statistics, prepared.spec, bare)
  assert found.keys() == wanted.keys()
  for name in wanted:
    np.testing.assert_array_equal(found[name], wanted[name], err_msg=name)
  bare['audio'][:] = 0
  np.testing.assert_array_equal(standardise(prepared.statistics, prepared.spec, bare)['audio_length'], 7)


@pytest.mark.parametrize('value', [1e6, np.nan, np.inf])
@pytest.mark.parametrize('missing', EXAMPLES, ids=describe)
def test_nothing_reads_what_is_removed(missing, value):
  dataset = small_dataset()
  expected = prepare(dataset, train_missing=missing, seed=4)
  _assert_same(expected, prepare(_spoil(dataset, missing, 4, value), train_missing=missing, seed=4))
  for split in expected.splits.values():
    assert all(np.isfinite(x).all() for x in split.features.values())


@pytest.mark.parametrize('missing', [Missing(), *EXAMPLES], ids=describe)
def test_statistics_are_those_of_the_observed(missing):
  dataset = small_dataset()
  found = prepare(dataset, train_missing=missing, seed=4).statistics
  train = dataset.splits['train']
  keep = _keep(missing, train, 4)
  for m, modality in enumerate(SPEC.modalities):
    if modality.kind == 'tokens':
      assert modality.name not in found.mean
      continue
    values = []
    for i in range(len(train)):
      if keep.slots[i, m]:
        steps = range(train.features['audio_length'][i]) if modality.has_length else [...]
        kept = keep.frames.get(modality.name)
        values += [
          train.features[modality.name][i][t].reshape(-1, modality.shape[-1])
          for t in steps
          if kept is None or kept[i, t]
        ]
    if not values:
      np.testing.assert_array_equal(found.mean[modality.name], 0)
      np.testing.assert_array_equal(found.std[modality.name], 1)
      continue
    values = np.concatenate(values).astype(np.float64)
    np.testing.assert_allclose(found.mean[modality.name], values.mean(0), rtol=1e-6)
    np.testing.assert_allclose(found.std[modality.name], values.std(0), rtol=1e-6)


def test_statistics_do_not_depend_on_the_chunks(monkeypatch):
  dataset = small_dataset()
  expected = prepare(dataset, train_missing=EXAMPLES[0], seed=4)
  monkeypatch.setattr(prepare_module, '_CHUNK', 7)
  found = prepare(dataset, train_missing=EXAMPLES[0], seed=4)
  for name, x in expected.statistics.std.items():
    np.testing.assert_allclose(found.statistics.std[name], x, rtol=1e-6)


def test_standardised_values_and_zero():
  dataset = small_dataset()
  prepared = prepare(dataset, train_missing=Missing(), seed=0)
  train = prepared.splits['train'].features
  inside = np.arange(7) < train['audio_length'][:, None]
  np.testing.assert_allclose(train['audio'][inside].mean(0), 0, atol=1e-5)
  np.testing.assert_allclose(train['audio'][inside].std(0), 1, atol=1e-5)
  assert (train['audio'][~inside] == 0).all()
  np.testing.assert_allclose(train['face'].mean((0, 1, 2)), 0, atol=1e-5)
  np.testing.assert_array_equal(train['text'], dataset.splits['train'].features['text'])
  raw = {
    k: np.zeros_like(v) if k in ('audio', 'face', 'pose') else v for k, v in dataset.splits['test'].features.items()
  }
  zeros = standardise(prepared.statistics, SPEC, raw)
  np.testing.assert_array_equal(zeros['pose'], np.broadcast_to(prepared.zero['pose'], (23, 4)))
  np.testing.assert_array_equal(zeros['face'][0, 1, 2], prepared.zero['face'])
  assert all(x.dtype in (np.float32, np.int32) for x in train.values())


def test_a_feature_that_does_not_vary_is_left_at_its_scale():
  dataset = small_dataset()
  dataset.splits['train'].features['pose'][:, 1] = 5.0
  prepared = prepare(dataset, train_missing=Missing(), seed=0)
  assert prepared.statistics.std['pose'][1] == 1
  assert (prepared.splits['train'].features['pose'][:, 1] == 0).all()


def test_the_test_split_lacks_nothing_and_labels_stay():
  dataset = small_dataset()
  prepared = prepare(dataset, train_missing=EXAMPLES[0], seed=4)
  expected = standardise(prepared.statistics, SPEC, dataset.splits['test'].features)
  for name, x in expected.items():
    np.testing.assert_array_equal(prepared.splits['test'].features[name], x)
  for name, split in dataset.splits.items():
    np.testing.assert_array_equal(prepared.splits[name].label, split.label)
    assert ('kept' in prepared.splits[name].extras) == (name != 'test')


def test_what_is_kept_is_only_standardised_and_the_source_is_not_touched():
  dataset = small_dataset()
  before = {k: v.copy() for k, v in dataset.splits['train'].features.items()}
  prepared = prepare(dataset, train_missing=EXAMPLES[0], seed=4)
  plain = standardise(prepared.statistics, SPEC, before)
  kept = prepared.splits['train'].extras['kept']
  for m, name in enumerate(SPEC.names):
    rows = kept[:, m] == 1
    np.testing.assert_array_equal(prepared.splits['train'].features[name][rows], plain[name][rows])
  for name, x in before.items():
    np.testing.assert_array_equal(dataset.splits['train'].features[name], x)


def test_the_seed_decides_what_is_missing():
  dataset = small_dataset()
  kept = [prepare(dataset, train_missing=EXAMPLES[0], seed=s).splits['train'].extras['kept'] for s in (4, 4, 5)]
  np.testing.assert_array_equal(kept[0], kept[1])
  assert (kept[0] != kept[2]).any()


def test_swapped_in_slots_are_observed_ones_of_others():
  dataset = small_dataset(train=12)
  for seed in range(20):
    prepared = prepare(dataset, train_missing=Missing('modality', 0.5, fills=('swap',)), seed=seed)
    pose, kept = prepared.splits['train'].features['pose'], prepared.splits['train'].extras['kept'][:, 3]
    plain = standardise(prepared.statistics, SPEC, dataset.splits['train'].features)['pose']
    for row in np.flatnonzero(kept == 0):
      (donor,) = np.flatnonzero((plain == pose[row]).all(1))
      assert donor != row
      assert kept[donor] == 1


def test_nobody_gives_to_themselves():
  """Under 'frames' a sample may lack some frames of a modality and have others to give."""
  givers, rng = np.array([1, 3, 4]), np.random.default_rng(0)
  drawn = np.stack([prepare_module._draw_among(givers, rng.integers(0, 2**32, 6, np.uint32)) for _ in range(60)])
  for row in range(6):
    assert set(drawn[:, row]) == {1, 3, 4} - {row}
  np.testing.assert_array_equal(prepare_module._draw_among(givers[:1], np.zeros(6, np.uint32)), [1, 6, 1, 1, 1, 1])


def test_swap_without_anything_to_swap_in_is_an_error():
  with pytest.raises(UserError, match='another fill'):
    prepare(small_dataset(), train_missing=Missing('subset', kept=('audio',), fills=('swap',)), seed=0)


def test_non_finite_frames_become_raw_zero():
  dataset = small_dataset()
  prepared = prepare(dataset, train_missing=Missing(), seed=0)
  raw = {k: v.copy() for k, v in dataset.splits['test'].features.items()}
  raw['audio'][0, 1, 2], raw['pose'][3, 0] = np.nan, np.inf
  found = standardise(prepared.statistics, SPEC, raw)
  np.testing.assert_array_equal(found['audio'][0, 1], prepared.zero['audio'])
  np.testing.assert_array_equal(found['pose'][3], prepared.zero['pose'])
  np.testing.assert_array_equal(found['audio'][1:], prepared.splits['test'].features['audio'][1:])


def test_user_arrays():
  dataset = small_dataset()
  prepared = prepare(dataset, train_missing=Missing(), seed=0)
  raw = {k: v for k, v in dataset.splits['test'].features.items() if not k.endswith('_length')}
  found = standardise(prepared.statistics, SPEC, raw)
  np.testing.assert_array_equal(found['audio_length'], dataset.splits['test'].features['audio_length'])
  with pytest.raises(UserError, match="'pose' is absent"):
    standardise(prepared.statistics, SPEC, {k: v for k, v in raw.items() if k != 'pose'})
  with pytest.raises(UserError, match=r'shape \(23, 4, 1\)'):
    standardise(prepared.statistics, SPEC, {**raw, 'pose': raw['pose'][..., None]})
  with pytest.raises(UserError, match='audio_length'):
    standardise(prepared.statistics, SPEC, {**raw, 'audio_length': np.array(3)})
