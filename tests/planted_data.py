"""A data set in which everything is planted, and ways to read the findings of the check, for the tests of the check."""

import numpy as np

from dream_jax.data.datasets import Dataset, Split, sample_keys
from dream_jax.datacheck.advice import advise
from dream_jax.spec import DatasetSpec, ModalitySpec

SIZES = {'train': 300, 'validation': 200, 'test': 250}
OUTPUTS = {'regression': 1, 'binary': 1, 'multiclass': 3, 'multilabel': 4}
MODALITIES = (ModalitySpec('told', 'vector', (5,)), ModalitySpec('noise', 'sequence', (4, 3)))


def make_spec(task='multiclass', modalities=MODALITIES, **options):
  return DatasetSpec('planted', modalities, task, OUTPUTS[task], 'synthetic', **options)


def make(task='multiclass', sizes=None, seed=0) -> Dataset:
  """'told' holds the label with a little noise, 'noise' holds nothing; every class is about equally frequent."""
  rng = np.random.default_rng(seed)
  spec, splits = make_spec(task), {}
  for name, n in (sizes or SIZES).items():
    hidden = rng.normal(size=(n, 5)).astype(np.float32)
    if task == 'regression':
      label = (2 * hidden[:, 0] + 5).astype(np.float32)
    elif task == 'binary':
      label = (hidden[:, 0] > 0).astype(np.int32)
    elif task == 'multiclass':
      label = hidden[:, :3].argmax(1).astype(np.int32)
    else:
      label = (hidden[:, :4] > 0.5).astype(np.float32)
    length = rng.integers(1, 4, n).astype(np.int32)
    noise = rng.normal(size=(n, 4, 3)).astype(np.float32)
    noise[np.arange(4) >= length[:, None]] = 0
    told = hidden + 0.1 * rng.normal(size=hidden.shape).astype(np.float32)
    ids = np.array([f'{name}{i:04}' for i in range(n)])
    features = {'told': told, 'noise': noise, 'noise_length': length}
    splits[name] = Split(ids, sample_keys(ids), features, label, {})
  return Dataset(spec, splits, {})


def topics(findings, kind=None):
  return {a.topic for a in advise(findings) if kind in (None, a.kind)}


def text_of(findings, topic):
  (found,) = (a for a in advise(findings) if a.topic == topic)
  return found.text


def modality(findings, name):
  return next(m for m in findings.modalities if m.name == name)


def repeats(findings, what):
  return {(r.first, r.second): r.count for r in findings.repeats if r.what == what and r.count}
