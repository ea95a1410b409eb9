"""`inspect(dataset)`: every finding about a data set, as plain values; what they mean is said in `advice`.

Letters: n samples of a split, T time, D features, C classes or labels.
"""

import dataclasses
from collections.abc import Mapping

import numpy as np

from dream_jax.data.datasets import Dataset, Split
from dream_jax.data.prepare import SMALLEST_STD
from dream_jax.datacheck import content, duplicates
from dream_jax.datacheck.duplicates import Conflicts, RepeatedIds, Repeats
from dream_jax.datacheck.padding import Padding, foreign_padding, padded
from dream_jax.datacheck.probe import Probes, probe
from dream_jax.spec import DatasetSpec, ModalitySpec

BINS = 5
_WHOLE_IN_FLOAT32 = 2.0**24  # From here on neighbours among whole numbers become one.


@dataclasses.dataclass(frozen=True)
class Lengths:
  """Lengths in frames or tokens: `shortest`, `median`, `longest`, and `full`, the number of samples that fill all T."""

  shortest: int
  median: float
  longest: int
  full: int


@dataclasses.dataclass(frozen=True)
class Values:
  """Observed values of the training split; all zero where nothing is observed.

  Attributes:
    frames: number of frames (vectors, images) observed.
    low: smallest value; `high`, `mean` and `std` likewise over all features.
    constant: positions of features (image: channels) that do not vary, or less than training rescales.
    narrow: those of them whose values are large and hardly differ, or so large that float32 could not tell.
    tiny: those of them that vary around 0, by less than a millionth.
    widest: position of the feature with the largest standard deviation; -1 where none varies.
    narrowest: the smallest that still varies.
    scale_ratio: the one deviation over the other; 1 where none varies.
  """

  frames: int
  low: float
  high: float
  mean: float
  std: float
  constant: tuple[int, ...]
  narrow: tuple[int, ...]
  tiny: tuple[int, ...]
  widest: int
  narrowest: int
  scale_ratio: float


@dataclasses.dataclass(frozen=True)
class Tokens:
  """Use of token ids.

  Attributes:
    distinct: number of different ids in the training split, without unknown and what pads (`ModalityFindings.padding`).
    unknown: split -> share of tokens that are the unknown id, in samples that have the modality.
    unseen: split -> share of the known tokens whose id is not in the training split.
  """

  distinct: int
  unknown: Mapping[str, float]
  unseen: Mapping[str, float]


@dataclasses.dataclass(frozen=True)
class ModalityFindings:
  """One modality.

  Attributes:
    name: as in the data set; `kind`, `shape` and `vocab_size` likewise.
    non_finite: number of NaN and infinite source values in all splits.
    lost_frames: number of frames (vectors, images) that became zeros because of them.
    frames: number of frames (vectors, images) in all splits.
    empty: split -> number of samples in which everything is zero (tokens: unknown): probably missing.
    empty_frames: split -> share of frames, inside the lengths of the other samples, that are all zero; {} where frames
      cannot tell.
    lengths: split -> lengths; {} where there are none.
    padding: what training samples seem to be padded with, if it is read as content; None if nothing is seen.
    values: None for tokens.
    tokens: None for all else.
  """

  name: str
  kind: str
  shape: tuple[int, ...]
  vocab_size: int
  non_finite: int
  lost_frames: int
  frames: int
  empty: Mapping[str, int]
  empty_frames: Mapping[str, float]
  lengths: Mapping[str, Lengths]
  padding: Padding | None
  values: Values | None
  tokens: Tokens | None


@dataclasses.dataclass(frozen=True)
class Numbers:
  """Labels of a regression task in one split.

  Attributes:
    low: smallest; `median`, `mean`, `high` and `std` likewise.
    zeros: number of labels that are exactly zero.
    outside: number of labels outside the declared range.
    bins: number of labels in each of `TargetFindings.edges`' intervals; the outer ones are open.
  """

  low: float
  median: float
  mean: float
  high: float
  std: float
  zeros: int
  outside: int
  bins: tuple[int, ...]


@dataclasses.dataclass(frozen=True)
class TargetFindings:
  """The labels.

  Attributes:
    names: names of the classes or labels; () for regression.
    unusable: split -> number of labels that are not a number, or no class of the data set; counted nowhere else.
    counts: split -> samples of each class, or with each label.
    without: split -> samples without any label; multilabel only.
    numbers: split -> statistics; regression only.
    edges: BINS + 1 borders of equal width over the range of the training labels; regression only.
  """

  names: tuple[str, ...]
  unusable: Mapping[str, int]
  counts: Mapping[str, tuple[int, ...]]
  without: Mapping[str, int]
  numbers: Mapping[str, Numbers]
  edges: tuple[float, ...]


@dataclasses.dataclass(frozen=True)
class Findings:
  """All that was found. `sizes` is split -> number of samples; the rest is named after what it holds."""

  name: str
  data_kind: str
  task: str
  label_range: tuple[float, float]
  sizes: Mapping[str, int]
  modalities: tuple[ModalityFindings, ...]
  target: TargetFindings
  repeats: tuple[Repeats, ...]
  conflicts: Conflicts
  repeated_ids: RepeatedIds
  probes: Probes


def inspect(dataset: Dataset) -> Findings:
  """What there is to know about a data set before training.

  Labels of the test split are counted and compared between identical samples; no probe reads them.
  """
  spec, splits = dataset.spec, dataset.splits
  usable = {name: _usable(spec, split.label) for name, split in splits.items()}
  repeats, conflicts = duplicates.find_repeats(spec, splits)
  train, validation = (
    # Usually all are, and a copy of the training split is dear.
    splits[name] if usable[name].all() else content.select(splits[name], usable[name])
    for name in ('train', 'validation')
  )
  return Findings(
    name=spec.name,
    data_kind=spec.data_kind,
    task=spec.task,
    label_range=spec.label_range,
    sizes={name: len(split) for name, split in splits.items()},
    modalities=tuple(_modality(m, dataset) for m in spec.modalities),
    target=_target(spec, splits, usable),
    repeats=repeats,
    conflicts=conflicts,
    repeated_ids=duplicates.find_repeated_ids(splits),
    probes=probe(spec, train, validation),
  )


def _modality(modality: ModalitySpec, dataset: Dataset) -> ModalityFindings:
  splits = dataset.splits
  empty = {name: content.empty(modality, split) for name, split in splits.items()}
  frames, padding = {}, foreign_padding(modality, splits['train'])
  if content.can_lack_frames(modality):
    frames = {name: _empty_frames(modality, split, empty[name]) for name, split in splits.items()}
  return ModalityFindings(
    name=modality.name,
    kind=modality.kind,
    shape=modality.shape,
    vocab_size=modality.vocab_size,
    non_finite=dataset.non_finite.get(modality.name, 0),
    lost_frames=dataset.lost_frames.get(modality.name, 0),
    frames=sum(int(content.inside(modality, split).sum()) for split in splits.values()),
    empty={name: int(e.sum()) for name, e in empty.items()},
    empty_frames=frames,
    lengths={n: _lengths(modality, s) for n, s in splits.items() if len(s)} if modality.has_length else {},
    padding=padding,
    values=None if modality.kind == 'tokens' else _values(modality, splits['train']),
    tokens=_tokens(modality, splits, padding) if modality.kind == 'tokens' else None,
  )


def _empty_frames(modality: ModalitySpec, split: Split, empty: np.ndarray) -> float:
  within = content.inside(modality, split)[~empty]
  filled = content.filled(modality, split)[~empty]
  return 1 - float(filled.sum()) / max(int(within.sum()), 1) if len(within) else 0.0


def _lengths(modality: ModalitySpec, split: Split) -> Lengths:
  lengths = split.features[modality.length_name]
  full = int((lengths == modality.shape[0]).sum())
  return Lengths(int(lengths.min()), float(np.median(lengths)), int(lengths.max()), full)


def _values(modality: ModalitySpec, split: Split) -> Values:
  x, seen = split.features[modality.name], content.observed(modality, split)
  x = x if modality.has_length else x[:, None]
  width = modality.shape[-1]
  count, total, low, high = 0, np.zeros(width), np.full(width, np.inf), np.full(width, -np.inf)
  for rows in content.chunks(len(x)):
    values = x[rows][seen[rows]].reshape(-1, width).astype(np.float64)
    count, total = count + len(values), total + values.sum(0)
    low, high = np.minimum(low, values.min(0, initial=np.inf)), np.maximum(high, values.max(0, initial=-np.inf))
  if not count:
    return Values(0, 0.0, 0.0, 0.0, 0.0, tuple(range(width)), (), (), -1, -1, 1.0)
  mean, squares = total / count, np.zeros(width)
  for rows in content.chunks(len(x)):
    squares += ((x[rows][seen[rows]].reshape(-1, width) - mean) ** 2).sum(0)
  std = np.sqrt(squares / count)
  constant = std <= SMALLEST_STD * np.maximum(np.abs(mean), 1.0)
  size, hardly = np.abs(mean), constant & (low < high)
  narrow = (hardly & (size >= 1)) | (constant & (size >= _WHOLE_IN_FLOAT32))
  varying = np.where(constant, np.nan, std)
  widest, narrowest = (-1, -1) if constant.all() else (int(np.nanargmax(varying)), int(np.nanargmin(varying)))
  return Values(
    frames=count,
    low=float(low.min()),
    high=float(high.max()),
    mean=float(mean.mean()),
    std=float(np.sqrt((std**2).mean() + mean.var())),
    constant=tuple(np.flatnonzero(constant).tolist()),
    narrow=tuple(np.flatnonzero(narrow).tolist()),
    tiny=tuple(np.flatnonzero(hardly & ~narrow).tolist()),
    widest=widest,
    narrowest=narrowest,
    scale_ratio=1.0 if widest < 0 else float(std[widest] / std[narrowest]),
  )


def _tokens(modality: ModalitySpec, splits: Mapping[str, Split], padding: Padding | None) -> Tokens:
  unknown, unseen = {}, {}
  known_ids = np.zeros(0, np.int32)
  for name, split in splits.items():  # 'train' is the first.
    ids = split.features[modality.name]
    # A sample of nothing but unknown ids lacks the modality: that says nothing about the vocabulary.
    within = content.inside(modality, split) & (ids != 0) & ~content.empty(modality, split)[:, None]
    if padding is not None:
      within &= ~padded(modality, split, padding)
    known = ids[within & (ids != modality.unk_id)]
    if name == 'train':
      known_ids = np.unique(known)
    unknown[name] = 1 - len(known) / max(int(within.sum()), 1) if within.any() else 0.0
    unseen[name] = float((~np.isin(known, known_ids)).mean()) if len(known) else 0.0
  return Tokens(len(known_ids), unknown, unseen)


def _usable(spec: DatasetSpec, label: np.ndarray) -> np.ndarray:
  """Which labels mean something, bool [n]."""
  if spec.task == 'regression':
    return np.isfinite(label)
  if spec.task == 'multilabel':
    return np.asarray(np.isin(label, (0, 1)).all(1))
  return np.asarray((label >= 0) & (label < max(2, spec.num_outputs)))


def _target(spec: DatasetSpec, splits: Mapping[str, Split], usable: Mapping[str, np.ndarray]) -> TargetFindings:
  labels = {name: split.label[usable[name]] for name, split in splits.items()}
  unusable = {name: int((~u).sum()) for name, u in usable.items()}
  if spec.task == 'regression':
    train = labels['train'].astype(np.float64)
    low, high = (float(train.min()), float(train.max())) if len(train) else spec.label_range
    edges = np.linspace(low, high, BINS + 1)
    numbers = {name: _numbers(spec, label.astype(np.float64), edges) for name, label in labels.items() if len(label)}
    return TargetFindings((), unusable, {}, {}, numbers, tuple(edges.tolist()))
  num_classes = max(2, spec.num_outputs) if spec.task != 'multilabel' else spec.num_outputs
  names = spec.class_names if len(spec.class_names) == num_classes else tuple(map(str, range(num_classes)))
  if spec.task == 'multilabel':
    counts = {name: label.sum(0) for name, label in labels.items()}
    without = {name: int((~label.any(1)).sum()) for name, label in labels.items()}
  else:
    counts, without = {name: np.bincount(label, minlength=num_classes) for name, label in labels.items()}, {}
  as_tuples = {name: tuple(int(v) for v in c) for name, c in counts.items()}
  return TargetFindings(names, unusable, as_tuples, without, {}, ())


def _numbers(spec: DatasetSpec, label: np.ndarray, edges: np.ndarray) -> Numbers:
  low, high = spec.label_range
  # Float32 labels against float64 limits: 0.1 is not 0.1.
  slack = 1e-6 * max(abs(low), abs(high), 1.0)
  outside = int(((label < low - slack) | (label > high + slack)).sum()) if high > low else 0
  bins = np.bincount(np.searchsorted(edges[1:-1], label, side='right'), minlength=BINS)
  return Numbers(
    low=float(label.min()),
    median=float(np.median(label)),
    mean=float(label.mean()),
    high=float(label.max()),
    std=float(label.std()),
    zeros=int((label == 0).sum()),
    outside=outside,
    bins=tuple(bins.tolist()),
  )
