"""A data set divided anew: into folds without its test split, to compare variants, or whole, to repeat a study."""

import dataclasses

import jax
import numpy as np

from dream_jax.data.datasets import Dataset, Split
from dream_jax.errors import UserError

FOLDS = 5
# What data sets call whatever must not be in two splits.
_GROUPS = ('group', 'video', 'dialogue')


def divided(dataset: Dataset, number: int) -> Dataset:
  """All samples in training, validation and test splits of about the sizes they have now.

  Samples of one group (the extra `group`, `video` or `dialogue`, where there is one) stay together; else classes keep
  their shares, and every division has splits of the same sizes.

  Args:
    dataset: its own division is undone.
    number: which division; the same every time.

  Raises:
    UserError: fewer groups than splits.
  """
  names = tuple(dataset.splits)
  pool = jax.tree.map(lambda *values: np.concatenate(values), *(vars(dataset.splits[name]) for name in names))
  sizes = np.array([len(dataset.splits[name]) for name in names])
  rng, shares = np.random.default_rng(number), np.cumsum(sizes) / sizes.sum()
  key = next((name for name in _GROUPS if name in pool['extras']), None)
  home = np.zeros(len(pool['ids']), int)  # Place in `names`.
  if key is not None:
    groups, group, counts = np.unique(pool['extras'][key], return_inverse=True, return_counts=True)
    if len(groups) < len(names):
      raise UserError(f'{dataset.spec.name} has {len(groups)} groups ({key}); expected at least {len(names)} to divide')
    order = rng.permutation(len(groups))
    middle = (np.cumsum(counts[order]) - counts[order] / 2) / counts.sum()
    of_group = np.empty(len(groups), int)
    of_group[order] = np.searchsorted(shares[:-1], middle)
    for place in range(len(names)):  # A group each, whatever their sizes.
      if place not in of_group:
        of_group[order[place]] = place
    home = of_group[group]
  else:
    label = pool['label']
    classes = label if dataset.spec.task in ('binary', 'multiclass') else np.zeros(len(label))
    for value in np.unique(classes):
      rows = rng.permutation(np.flatnonzero(classes == value))
      for place, part in enumerate(np.split(rows, np.round(shares[:-1] * len(rows)).astype(int))):
        home[part] = place

  def taken(place: int) -> Split:
    rows = np.flatnonzero(home == place)
    rows = rows[np.argsort(pool['ids'][rows])]
    return Split(**jax.tree.map(lambda values: values[rows], pool))

  return dataclasses.replace(dataset, splits={name: taken(place) for place, name in enumerate(names)})


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


def fewer(dataset: Dataset, samples: int, seed: int = 0) -> Dataset:
  """So many training samples, and a third as many validation samples, at least 30; all others as they are.

  Classes keep their shares as nearly as whole samples allow.

  Args:
    dataset: with at least as many; fewer stay.
    samples: of the training split.
    seed: which ones.
  """
  splits = dict(dataset.splits)
  classes = dataset.spec.task in ('binary', 'multiclass')
  for name, size in (('train', samples), ('validation', max(30, samples // 3))):
    split = splits[name]
    if size >= len(split):
      continue
    rng, label = np.random.default_rng(seed), split.label if classes else np.zeros(len(split))
    values, counts = np.unique(label, return_counts=True)
    wanted = counts / len(label) * size
    taken = np.floor(wanted).astype(int)
    taken[np.argsort(taken - wanted, kind='stable')[: size - taken.sum()]] += 1
    rows = [rng.permutation(np.flatnonzero(label == v))[:n] for v, n in zip(values, taken, strict=True)]
    chosen = np.sort(np.concatenate(rows))
    splits[name] = Split(**jax.tree.map(lambda x, rows=chosen: x[rows], vars(split)))
  return dataclasses.replace(dataset, splits=splits)
