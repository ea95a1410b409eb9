"""Odd but legal data sets: whatever is in them, the check says it in words and numbers that exist."""

import json
import re

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from planted_data import OUTPUTS

from dream_jax.data.datasets import Dataset, Split, sample_keys
from dream_jax.datacheck import check
from dream_jax.datacheck.advice import advise
from dream_jax.spec import TASKS, DatasetSpec, ModalitySpec

MODALITIES = (
  ModalitySpec('vector', 'vector', (3,)),
  ModalitySpec('sequence', 'sequence', (4, 2)),
  ModalitySpec('number', 'sequence', (3, 1)),
  ModalitySpec('words', 'tokens', (5,), vocab_size=9),
  ModalitySpec('image', 'image', (3, 9, 9)),
)
CONTENTS = ('normal', 'zero', 'constant', 'huge', 'tiny', 'offset', 'gaps', 'front', 'label')
LABELS = ('any', 'one', 'unusable', 'huge', 'rare')
NOT_A_NUMBER = re.compile(r'\b(nan|inf|None)\b')


def _values(content, shape, label, rng):
  x = rng.normal(size=shape)
  some = rng.random(shape[:2] if len(shape) > 2 else shape[:1]) < 0.5
  some = some.reshape(some.shape + (1,) * (x.ndim - some.ndim))
  with np.errstate(over='ignore'):
    return {
      'normal': x,
      'zero': 0 * x,
      'constant': 0 * x + 7,
      'huge': np.sign(x) * 3e38,
      'tiny': x * 1e-40,
      'offset': 1.7e12 + 1000 * x,
      'gaps': np.where(some, x, 0),
      'front': x * (np.arange(shape[1]) > 1).reshape(-1, *[1] * (x.ndim - 2)),
      'label': 0 * x + np.nan_to_num(label if label.ndim == 1 else label[:, 0]).reshape(-1, *[1] * (x.ndim - 1)),
    }[content].astype(np.float32)


def _labels(kind, task, n, rng):
  if task == 'regression':
    label = rng.normal(size=n)
    if kind == 'huge':
      label = np.sign(label) * 3e38
  elif task == 'multilabel':
    label = rng.integers(0, 2, (n, 4)).astype(float)
  else:
    label = rng.integers(0, 3 if task == 'multiclass' else 2, n)
  if kind == 'one':
    label[:] = 1
  if kind == 'rare':
    label[:] = 0
    label[:1] = 1
  if kind == 'unusable':
    label[::3] = np.nan if label.dtype.kind == 'f' else -1
  return label.astype(np.float32 if task in ('regression', 'multilabel') else np.int32)


def _dataset(task, sizes, contents, labels, full, seed):
  rng, splits = np.random.default_rng(seed), {}
  for name, n, kind in zip(('train', 'validation', 'test'), sizes, labels, strict=True):
    ids, label, features = np.array([f'{name}{i}' for i in range(n)], str), _labels(kind, task, n, rng), {}
    for modality, content in zip(MODALITIES, contents, strict=True):
      shape = (n, *modality.shape)
      if modality.kind == 'tokens':
        x = rng.integers(0, {'zero': 1, 'constant': 2}.get(content, 9), shape).astype(np.int32)
        if content == 'front':
          x[:, :2] = rng.integers(0, 2)
      else:
        x = _values(content, shape, label, rng)
      if modality.has_length:
        length = rng.integers(1, modality.shape[0] + 1, n).astype(np.int32)
        length = np.full(n, modality.shape[0], np.int32) if full else length
        x[np.arange(modality.shape[0]) >= length[:, None]] = 0
        features[modality.length_name] = length
      features[modality.name] = x
    splits[name] = Split(ids, sample_keys(ids), features, label, {})
  spec = DatasetSpec('odd', MODALITIES, task, OUTPUTS[task], 'synthetic')
  return Dataset(spec, splits, {'vector': sizes[0] + 1, 'image': 1}, {'vector': sizes[0], 'image': 1})


@pytest.mark.parametrize('task', TASKS)
@given(
  sizes=st.tuples(st.sampled_from([1, 2, 20, 41]), st.sampled_from([0, 1, 10, 17]), st.sampled_from([0, 1, 2, 12])),
  contents=st.tuples(*[st.sampled_from(CONTENTS)] * len(MODALITIES)),
  labels=st.tuples(*[st.sampled_from(LABELS)] * 3),
  full=st.booleans(),
  seed=st.integers(0, 99),
)
@settings(max_examples=60, deadline=None, derandomize=True, database=None)
def test_whatever_is_in_them_the_findings_are_words_and_strict_json(task, sizes, contents, labels, full, seed):
  findings = check.inspect(_dataset(task, sizes, contents, labels, full, seed))
  json.loads(check.to_json(findings), parse_constant=pytest.fail)
  text = check.describe(findings)
  assert not NOT_A_NUMBER.search(text), text
  for share in re.findall(r'(-?[\d.]+) %', text):
    assert 0 <= float(share) <= 100
  for found in advise(findings):
    assert found.text.endswith('.')
    assert found.todo.endswith('.')
