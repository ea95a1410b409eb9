"""A data set divided anew without its test split, to compare variants where the validation split is small."""

import dataclasses

import jax
import numpy as np

from dream_jax.data.datasets import Dataset, Split
from dream_jax.errors import UserError

FOLDS = 5


def refolded(dataset: Dataset, fold: int) -> Dataset:
  """Training and validation samples as five folds: 'test' is one, 'validation' the next, 'train' the others.

  Samples of one video (the extra `video`, where there is one) stay together.

  Args:
    dataset: its 'test' split is left out.
    fold: 0 to 4, which one is 'test'.

  Raises:
    UserError: fewer videos, or samples, than folds.
  """
  parts = [vars(dataset.splits[name]) for name in ('train', 'validation')]
  pool = jax.tree.map(lambda *values: np.concatenate(values), *parts)
  groups, group = np.unique(pool['extras'].get('video', pool['ids']), return_inverse=True)
  if len(groups) < FOLDS:
    raise UserError(f'{dataset.spec.name} has {len(groups)} groups of training samples; {FOLDS} folds need as many')
  folds = np.array_split(np.random.default_rng(0).permutation(len(groups)), FOLDS)

  def taken(*which):
    rows = np.flatnonzero(np.isin(group, np.concatenate([folds[i % FOLDS] for i in which])))
    rows = rows[np.argsort(pool['ids'][rows])]
    return Split(**jax.tree.map(lambda values: values[rows], pool))

  splits = {'test': taken(fold), 'validation': taken(fold + 1), 'train': taken(*range(fold + 2, fold + FOLDS))}
  return dataclasses.replace(dataset, splits=splits)
