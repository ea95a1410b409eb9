"""Data sets in memory: `load_dataset(name)` gives raw NumPy arrays per split, whatever their source.

Every data set goes through a TFDS builder of `dream_jax.data.builders`: prepared on first use, then read once.
TensorFlow is imported on the first call, not with this module.
"""

import collections
import dataclasses
import functools
import hashlib
import os
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from dream_jax.data import tfds_store
from dream_jax.data.catalogue import builder_class
from dream_jax.data.fingerprint import fingerprint
from dream_jax.machine import host_tensorflow
from dream_jax.spec import DatasetSpec

SPLITS = ('train', 'validation', 'test')
_READ_BATCH = 64


@dataclasses.dataclass(frozen=True, eq=False)
class Split:
  """Samples of one split, sorted by id.

  Attributes:
    ids: sample ids, [n] str.
    keys: 64-bit sample keys as two words, [n, 2] uint32; see `sample_keys`.
    features: name -> float32 [n, T, D], [n, D] or [n, H, W, C], tokens int32 [n, T]; `<name>_length` -> int32 [n] for
      sequences and tokens. Zero beyond the length.
    label: [n] or [n, C]; see `DatasetSpec.task`.
    extras: further arrays [n, ...] that no model reads: 'raw_text', 'informativeness' [n, M] float32, ...
  """

  ids: np.ndarray
  keys: np.ndarray
  features: dict[str, np.ndarray]
  label: np.ndarray
  extras: dict[str, np.ndarray]

  def __len__(self) -> int:
    return len(self.ids)


@dataclasses.dataclass(frozen=True, eq=False)
class Dataset:
  """A data set in memory, raw values.

  Attributes:
    spec: the contract with the models.
    splits: 'train', 'validation' and 'test'.
    non_finite: number of NaN and infinite source values of each modality; the frames they were in are zeros now.
    lost_frames: number of those frames (vectors, images), of each modality; {} if nobody counted them.
  """

  spec: DatasetSpec
  splits: dict[str, Split]
  non_finite: dict[str, int]
  lost_frames: dict[str, int] = dataclasses.field(default_factory=dict)

  @functools.cached_property
  def fingerprint(self) -> str:
    """Hash of all that results depend on, see `fingerprint`."""
    return fingerprint(self.spec, self.splits)


def sample_keys(ids: Sequence[str] | np.ndarray) -> np.ndarray:
  """Sample keys, [n, 2] uint32: the first 8 bytes of sha256(id), little endian, the same wherever it is stored."""
  digests = b''.join(hashlib.sha256(str(i).encode('utf-8')).digest()[:8] for i in ids)
  return np.frombuffer(digests, dtype='<u4').astype(np.uint32).reshape(-1, 2)


def load_dataset(
  name: str,
  *,
  tfds_dir: str | None = None,
  manual_dir: str | None = None,
  folder: str | None = None,
  options: Mapping[str, Any] | None = None,
) -> Dataset:
  """The data set in memory; prepared under `tfds_dir` on first use.

  Args:
    name: one of `catalogue.dataset_names()`; 'cmu_mosei' alone means its first config.
    tfds_dir: where prepared files lie; TFDS's default (`$TFDS_DATA_DIR` or ~/tensorflow_datasets) when None.
    manual_dir: folder with files the user downloaded, for data sets that cannot be fetched.
    folder: the user's own data, for data set 'folder'.
    options: options of the data set (see its config class).

  Raises:
    UserError: unknown name or option, a source file that is absent or wrong, prepared files that are broken, or too
      little memory.
  """
  host_tensorflow.load()
  builder = tfds_store.prepared_builder(
    builder_class(name),
    name.partition('/')[2] or None,
    tfds_dir=tfds_dir,
    manual_dir=manual_dir,
    folder=folder,
    options=dict(options or {}),
  )
  with tfds_store.naming_broken_files(builder.data_dir), tfds_store.quiet():
    builder.require_memory(sum(builder.info.splits[split].num_examples for split in SPLITS))
    arrays = {split: _read_split(builder, split) for split in SPLITS}
  return _assemble(builder.dataset_spec, arrays)


def known_of(
  name: str,
  *,
  tfds_dir: str | None = None,
  folder: str | None = None,
  options: Mapping[str, Any] | None = None,
) -> tuple[DatasetSpec, dict[str, int]]:
  """(spec, samples of each split as far as they are known) of a data set, without its data; nothing is prepared.

  Sizes are those of prepared files where there are some, else what the builder knows. The user's own data (`folder`)
  say their shapes themselves: of them headers and labels are read.

  Args:
    name: as for `load_dataset`, and so are the others.

  Raises:
    UserError: unknown name or option, or a folder that is absent or wrong.
  """
  host_tensorflow.load()
  builder, _, target = tfds_store.builder_and_place(
    builder_class(name),
    name.partition('/')[2] or None,
    tfds_dir=tfds_dir,
    folder=folder,
    options=dict(options or {}),
  )
  prepared = os.path.isdir(target) and set(SPLITS) <= set(builder.info.splits)
  sizes = {s: builder.info.splits[s].num_examples for s in SPLITS} if prepared else builder.known_sizes
  return builder.dataset_spec, sizes


def _read_split(builder: Any, split: str) -> dict[str, np.ndarray]:
  """All features of a split, rows sorted by id, so that the order does not depend on how TFDS shards its files."""
  import tensorflow_datasets as tfds

  size = builder.info.splits[split].num_examples
  # One batch at a time: what TFDS reads ahead by default would come on top of the data set itself.
  read_config = tfds.ReadConfig(
    try_autocache=False, skip_prefetch=True, interleave_cycle_length=1, num_parallel_calls_for_decode=2
  )

  def batches(**options):
    return tfds.as_numpy(builder.as_dataset(split=split, batch_size=_READ_BATCH, read_config=read_config, **options))

  # Ids alone first: rows then go straight to their places, and memory never holds a feature twice.
  only_ids = tfds.decode.PartialDecoding({'id': True})
  ids = np.array([i.decode('utf-8') for batch in batches(decoders=only_ids) for i in batch['id']])
  if len(ids) != size:
    raise ValueError(f'split {split} has {len(ids)} of {size} samples')
  if len(set(ids.tolist())) < size:
    twice, _ = collections.Counter(ids.tolist()).most_common(1)[0]
    raise ValueError(f'split {split} has id {twice!r} more than once')
  order = np.argsort(ids)
  place = np.empty_like(order)
  place[order] = np.arange(size)
  arrays: dict[str, np.ndarray] = {}
  row = 0
  for batch in batches():
    rows = place[row : row + len(batch['id'])]
    if [i.decode('utf-8') for i in batch['id']] != ids[row : row + len(batch['id'])].tolist():
      raise ValueError(f'the samples of split {split} changed their order while they were read')
    for name, values in batch.items():
      if name not in arrays:
        arrays[name] = np.empty((size, *values.shape[1:]), values.dtype)
      arrays[name][rows] = values
    row += len(rows)
  if row != size:
    raise ValueError(f'split {split} has {row} of {size} samples')
  return arrays | {'id': ids[order]}


def _assemble(spec: DatasetSpec, arrays: dict[str, dict[str, np.ndarray]]) -> Dataset:
  """A `Dataset` of raw arrays; non-finite values are counted, reported and zeroed."""
  zeroed = {m.name: [_zero_non_finite(a[m.name]) for a in arrays.values()] for m in spec.modalities}
  non_finite, lost = ({name: sum(c[i] for c in counts) for name, counts in zeroed.items()} for i in (0, 1))
  found = ', '.join(f'{count} in {name}' for name, count in non_finite.items() if count)
  if found:
    print(f'{spec.name}: non-finite source values: {found}; their frames count as missing (zeros)', flush=True)
  names = [m.name for m in spec.modalities] + [m.length_name for m in spec.modalities if m.has_length]
  label_dtype = np.float32 if spec.task in ('regression', 'multilabel') else np.int32
  splits = {
    split: Split(
      ids=a['id'],
      keys=sample_keys(a['id']),
      features={n: a[n] for n in names},
      label=a['label'].astype(label_dtype),
      extras={n: _as_text(v) for n, v in a.items() if n not in (*names, 'id', 'label')},
    )
    for split, a in arrays.items()
  }
  return Dataset(spec, splits, non_finite, lost)


def _zero_non_finite(values: np.ndarray) -> tuple[int, int]:
  """Numbers of NaN and infinite values and of their frames ([n, T, D]: rows of D, else samples), now zeros in place."""
  if values.dtype.kind != 'f':
    return 0, 0
  bad = ~np.isfinite(values)
  count = int(bad.sum())
  if not count:
    return 0, 0
  frames = bad.any(axis=-1) if values.ndim == 3 else bad.reshape(len(bad), -1).any(axis=-1)
  values[frames] = 0.0
  return count, int(frames.sum())


def _as_text(values: np.ndarray) -> np.ndarray:
  """TFDS gives strings as an object array of bytes; the rest passes."""
  return np.array([v.decode('utf-8') for v in values]) if values.dtype == object else values
