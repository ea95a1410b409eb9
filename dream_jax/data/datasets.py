"""Data sets in memory: `load_dataset(name)` gives raw NumPy arrays per split, whatever their source.

Every data set goes through a TFDS builder of `dream_jax.data.builders`: prepared on first use, then read once.
TensorFlow is imported on the first call, not with this module.
"""

import contextlib
import dataclasses
import hashlib
import importlib
import io
import os
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from dream_jax.data import host_tensorflow
from dream_jax.errors import UserError
from dream_jax.spec import DatasetSpec
from dream_jax.suggest import did_you_mean

SPLITS = ('train', 'validation', 'test')
# Data set -> (module, builder class); a builder lives in a package folder of its own, as TFDS requires.
_BUILDERS = {
  'digits': ('dream_jax.data.builders.digits.digits', 'Digits'),
  'synthetic': ('dream_jax.data.builders.synthetic.synthetic', 'Synthetic'),
  'mosei_standin': ('dream_jax.data.builders.mosei_standin.mosei_standin', 'MoseiStandin'),
  'cmu_mosei': ('dream_jax.data.builders.cmu_mosei.cmu_mosei', 'CmuMosei'),
}
_NAMES = ('digits', 'synthetic', 'mosei_standin', 'cmu_mosei/aligned', 'cmu_mosei/unaligned')
_READ_BATCH = 256


@dataclasses.dataclass(frozen=True, eq=False)
class Split:
  """Samples of one split, sorted by id.

  Attributes:
    ids: sample ids, [n] str.
    keys: 64-bit sample keys as two words, [n, 2] uint32; see `sample_keys`.
    features: name -> float32 [n, T, D], [n, D] or [n, H, W, C], tokens int32 [n, T]; `<name>_length` -> int32 [n] for
      sequences and tokens. Zero beyond the length.
    label: [n] or [n, C]; see `DatasetSpec.task`.
    extras: further arrays [n, ...] that no model reads: 'label_text', 'informativeness' [n, M] float32, ...
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
  """

  spec: DatasetSpec
  splits: dict[str, Split]
  non_finite: dict[str, int]


def sample_keys(ids: Sequence[str] | np.ndarray) -> np.ndarray:
  """Sample keys, [n, 2] uint32: the first 8 bytes of sha256(id), little endian, the same wherever it is stored."""
  digests = b''.join(hashlib.sha256(str(i).encode('utf-8')).digest()[:8] for i in ids)
  return np.frombuffer(digests, dtype='<u4').astype(np.uint32).reshape(-1, 2)


def dataset_names() -> tuple[str, ...]:
  """Names that `load_dataset` knows."""
  return _NAMES


def load_dataset(
  name: str,
  *,
  tfds_dir: str | None = None,
  manual_dir: str | None = None,
  options: Mapping[str, Any] | None = None,
) -> Dataset:
  """The data set in memory; prepared under `tfds_dir` on first use.

  Args:
    name: one of `dataset_names()`; 'cmu_mosei' alone means its first config.
    tfds_dir: where prepared files lie; TFDS's default (`$TFDS_DATA_DIR` or ~/tensorflow_datasets) when None.
    manual_dir: folder with files the user downloaded, for data sets that cannot be fetched.
    options: options of generated data sets (see their config classes).

  Raises:
    UserError: unknown name or option, a source file that is absent or wrong, or prepared files that are broken.
  """
  host_tensorflow.load()
  base, _, config_name = name.partition('/')
  if base not in _BUILDERS:
    raise UserError(f'unknown data set {name!r}; {did_you_mean(name, _NAMES)}')
  with _quiet():
    module, class_name = _BUILDERS[base]
    builder_class = getattr(importlib.import_module(module), class_name)
  config = builder_class.config_from_options(config_name or None, dict(options or {}))
  builder = _prepared_builder(builder_class, config, tfds_dir, manual_dir)
  with _naming_broken_files(builder.data_dir), _quiet():
    arrays = {split: _read_split(builder, split) for split in SPLITS}
  return _assemble(builder.dataset_spec, arrays)


def _prepared_builder(builder_class, config, tfds_dir: str | None, manual_dir: str | None):
  """A builder whose files are on disk."""
  import tensorflow_datasets as tfds

  root = os.path.abspath(os.path.expanduser(tfds_dir or tfds.core.constants.DATA_DIR))  # pyright: ignore[reportAttributeAccessIssue]  # Lazy.
  configs = builder_class.BUILDER_CONFIGS
  config_name = getattr(config, 'name', config) or (configs[0].name if configs else '')
  folder = os.path.join(root, builder_class.name, config_name, str(builder_class.VERSION))
  with _naming_broken_files(folder), _quiet():
    builder = builder_class(data_dir=root, config=config)
  if os.path.isdir(folder):
    return builder
  downloads = os.path.abspath(os.path.expanduser(manual_dir or os.path.join(root, 'downloads', 'manual')))
  builder.find_source(downloads, explicit=manual_dir is not None)
  print(f'preparing data set {builder.info.full_name} in {folder} (first use)', flush=True)
  download_config = tfds.download.DownloadConfig(manual_dir=downloads, try_download_gcs=False)
  try:
    with _quiet():
      builder.download_and_prepare(download_config=download_config)
  except UserError:
    raise
  except Exception:
    # Another process may have finished the same folder first; TFDS then fails to move its own there.
    if not os.path.isdir(folder):
      raise
    with _naming_broken_files(folder), _quiet():
      builder = builder_class(data_dir=root, config=config)
  for note in builder.notes:
    print(note, flush=True)
  return builder


def _read_split(builder, split: str) -> dict[str, np.ndarray]:
  """All features of a split, rows sorted by id, so that the order does not depend on how TFDS shards its files."""
  import tensorflow_datasets as tfds

  size = builder.info.splits[split].num_examples
  arrays: dict[str, np.ndarray] = {}
  read_config = tfds.ReadConfig(try_autocache=False)
  row = 0
  for batch in tfds.as_numpy(builder.as_dataset(split=split, batch_size=_READ_BATCH, read_config=read_config)):
    for name, values in batch.items():
      if name not in arrays:
        arrays[name] = np.empty((size, *values.shape[1:]), values.dtype)
      arrays[name][row : row + len(values)] = values
    row += len(batch['id'])
  if row != size:
    raise ValueError(f'split {split} has {row} of {size} samples')
  arrays['id'] = np.array([i.decode('utf-8') for i in arrays['id']])
  order = np.argsort(arrays['id'])
  for name in arrays:  # One at a time: the largest feature is copied, not the whole split.
    arrays[name] = arrays[name][order]
  return arrays


def _assemble(spec: DatasetSpec, arrays: dict[str, dict[str, np.ndarray]]) -> Dataset:
  """A `Dataset` of raw arrays; non-finite values are counted, reported and zeroed."""
  non_finite = {m.name: sum(_zero_non_finite(a[m.name]) for a in arrays.values()) for m in spec.modalities}
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
  return Dataset(spec, splits, non_finite)


def _zero_non_finite(values: np.ndarray) -> int:
  """Number of NaN and infinite values; their frames ([n, T, D]: rows of D, else samples) become zeros in place."""
  if values.dtype.kind != 'f':
    return 0
  bad = ~np.isfinite(values)
  count = int(bad.sum())
  if count:
    frames = bad.any(axis=-1) if values.ndim == 3 else bad.reshape(len(bad), -1).any(axis=-1)
    values[frames] = 0.0
  return count


def _as_text(values: np.ndarray) -> np.ndarray:
  """TFDS gives strings as an object array of bytes; the rest passes."""
  return np.array([v.decode('utf-8') for v in values]) if values.dtype == object else values


@contextlib.contextmanager
def _naming_broken_files(folder: str) -> Iterator[None]:
  """Turns whatever TFDS and TensorFlow raise on damaged files into one line that says what to delete."""
  try:
    yield
  except UserError:
    raise
  except Exception as error:
    if not os.path.isdir(folder):
      raise
    reason = ' '.join(str(error).split())[:160] or type(error).__name__
    message = f'the prepared files in {folder} are broken ({reason}); delete that folder and run again'
    raise UserError(message) from error


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
  """Silences progress bars, log lines and banners of TFDS and TensorFlow; exceptions pass."""
  from absl import logging

  verbosity = logging.get_verbosity()
  logging.set_verbosity(logging.ERROR)
  try:
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
      yield
  finally:
    logging.set_verbosity(verbosity)
