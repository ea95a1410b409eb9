"""The hash of a data set changes with everything that results depend on, and with nothing else."""

import dataclasses

import numpy as np
import pytest
import small_data

from dream_jax.data.prepare import prepare
from dream_jax.errors import UserError
from dream_jax.missingness.missing import Missing
from dream_jax.workdir.config_guard import claim, run_identity


def _changed(dataset, split, **parts):
  """The data set with other parts in one split."""
  return dataclasses.replace(
    dataset, splits={**dataset.splits, split: dataclasses.replace(dataset.splits[split], **parts)}
  )


def _feature(split, name, change):
  def changed(dataset):
    x = dataset.splits[split].features[name].copy()
    change(x)
    return _changed(dataset, split, features={**dataset.splits[split].features, name: x})

  return changed


def _add(x):
  x.reshape(-1)[0] += 1


def _swap(x):
  x[[0, 1]] = x[[1, 0]]


def _label(dataset):
  label = dataset.splits['test'].label.copy()
  label[0] = (label[0] + 1) % 3
  return _changed(dataset, 'test', label=label)


def _renamed(dataset):
  ids = np.array(['other', *dataset.splits['train'].ids[1:]])
  return _changed(dataset, 'train', ids=ids)


def _cut(ids):
  """The same text, cut elsewhere: 'ab', 'c' and 'a', 'bc'."""

  def changed(dataset):
    return _changed(dataset, 'train', ids=np.array([*ids, *dataset.splits['train'].ids[2:]]))

  return changed


def _told(dataset):
  known = np.ones((len(dataset.splits['test']), 4), np.float32)
  return _changed(dataset, 'test', extras={'informativeness': known})


def _classes(dataset):
  return dataclasses.replace(dataset, spec=dataclasses.replace(dataset.spec, class_names=('a', 'b', 'c')))


CHANGES = {
  'a feature of training': _feature('train', 'pose', _add),
  'a feature of validation': _feature('validation', 'audio', _add),
  'a feature of test': _feature('test', 'face', _add),
  'a token': _feature('test', 'text', _add),
  'a length': _feature('test', 'audio_length', _add),
  'two rows swapped': _feature('test', 'pose', _swap),
  'a label': _label,
  'an id': _renamed,
  'ids cut one way': _cut(('ab', 'c')),
  'ids cut another way': _cut(('a', 'bc')),
  'known informativeness': _told,
  'names of classes': _classes,
}


def test_every_change_gives_another_hash():
  whole = small_data.small_dataset()
  found = [whole.fingerprint, *(change(whole).fingerprint for change in CHANGES.values())]
  assert len(set(found)) == len(found)


def test_the_same_values_give_the_same_hash_whatever_texts_stand_beside_them():
  whole = small_data.small_dataset()
  again = small_data.small_dataset()
  assert again.fingerprint == whole.fingerprint
  beside = _changed(whole, 'test', extras={'raw_text': np.array(['x'] * len(whole.splits['test']))})
  assert beside.fingerprint == whole.fingerprint
  test = whole.splits['test']
  elsewhere = _changed(whole, 'test', features={n: np.asfortranarray(x) for n, x in reversed(test.features.items())})
  assert elsewhere.fingerprint == whole.fingerprint


def test_what_is_missing_in_training_does_not_change_it():
  whole = small_data.small_dataset()
  made = prepare(whole, train_missing=Missing('modality', 0.5), seed=3)
  assert made.data == whole.fingerprint


@pytest.mark.parametrize('change', ['a feature of test', 'a token', 'two rows swapped', 'a label'])
def test_a_workdir_refuses_data_that_changed(change, tmp_path):
  whole = small_data.small_dataset()

  def command(mode, dataset, *, free):
    run = run_identity(mode, {}, dataset.fingerprint, ignore=())
    claim(tmp_path / mode, {}, mode=mode, free=free, run=run)

  for mode, free in (('train', ('mesh',)), ('study', None)):
    command(mode, whole, free=free)
    command(mode, whole, free=free)
    with pytest.raises(UserError, match=r'was made with other data.*choose another --workdir'):
      command(mode, CHANGES[change](whole), free=free)
