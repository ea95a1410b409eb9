"""Folds of training and validation samples: every one is tested on once, and no video is on two sides."""

import dataclasses

import numpy as np
import pytest
from small_data import SPEC

from dream_jax.data.datasets import Dataset, Split, sample_keys
from dream_jax.data.folds import FOLDS, fewer, refolded
from dream_jax.errors import UserError


def _dataset(n, *, per_video=None):
  def split(prefix, size):
    ids = np.array([f'{prefix}{i:03d}' for i in range(size)])
    number = np.arange(size) + 1000 * (prefix == 'a') + 5000 * (prefix == 'x')
    extras = {'video': np.array([f'{prefix}{i // per_video}' for i in range(size)])} if per_video else {}
    return Split(ids, sample_keys(ids), {'face': number.astype(np.float32)[:, None]}, number, extras)

  return Dataset(SPEC, {'train': split('t', n), 'validation': split('a', n // 3), 'test': split('x', n // 3)}, {})


@pytest.mark.parametrize('per_video', [None, 4])
def test_every_sample_but_those_of_test_is_compared_on_once(per_video):
  dataset, seen = _dataset(90, per_video=per_video), []
  for fold in range(FOLDS):
    splits = refolded(dataset, fold).splits
    ids = np.concatenate([splits[name].ids for name in ('train', 'validation', 'test')])
    assert len(set(ids)) == len(ids) == 120
    assert not any(i.startswith('x') for i in ids)
    assert len(splits['train']) > 2 * len(splits['validation'])
    for split in splits.values():
      assert list(split.ids) == sorted(split.ids)
      np.testing.assert_array_equal(split.features['face'][:, 0], split.label)
      np.testing.assert_array_equal(split.keys, sample_keys(split.ids))
    seen += list(splits['test'].ids)
  assert sorted(seen) == sorted(ids)


def test_a_video_is_on_one_side():
  splits = refolded(_dataset(90, per_video=4), 2).splits
  videos = [set(split.extras['video']) for split in splits.values()]
  assert sum(map(len, videos)) == len(set.union(*videos)) == 23 + 8


def test_too_few_videos_are_told():
  with pytest.raises(UserError, match='4 groups of training samples; 5 folds need as many'):
    refolded(dataclasses.replace(_dataset(9, per_video=3)), 0)


def test_fewer_samples_keep_the_shares_of_their_classes():
  dataset = _dataset(200)
  splits = {
    n: dataclasses.replace(s, label=(np.arange(len(s)) % 4 == 0).astype(int)) for n, s in dataset.splits.items()
  }
  dataset = dataclasses.replace(
    dataset, splits=splits, spec=dataclasses.replace(SPEC, task='multiclass', num_outputs=2)
  )
  made = fewer(dataset, 61, 3)
  sizes = {name: len(split) for name, split in made.splits.items()}
  assert sizes == {'train': 61, 'validation': 30, 'test': 66}
  assert np.bincount(made.splits['train'].label).tolist() in ([46, 15], [45, 16])
  assert set(made.splits['train'].ids) < set(splits['train'].ids)
  assert list(made.splits['train'].ids) != list(fewer(dataset, 61, 4).splits['train'].ids)
  assert {n: len(s) for n, s in fewer(dataset, 999).splits.items()} == {'train': 200, 'validation': 66, 'test': 66}
