"""A user's folder with a modality of every kind, in every format, and ways to read it, for the tests of folders."""

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from dream_jax.data.builders.folder.description import read_description
from dream_jax.data.builders.folder.index import make_index
from dream_jax.data.builders.folder.survey import survey_folder
from dream_jax.data.datasets import load_dataset
from dream_jax.errors import UserError

SPLITS = ('train', 'validation', 'test')
N = 13
TOML = """
name = "my study"
task = "multiclass"
label = "mood"
splits = "part"
id = "who"

[modalities]
eeg = "sequence"
pulse = "sequence"
pose = "vector"
age = "vector"
words = { kind = "tokens", vocab_size = 50 }
face = "image"
photo = "image"
"""
SHAPES = {
  'eeg': (9, 3),
  'pulse': (6, 1),
  'pose': (4,),
  'age': (1,),
  'words': (5,),
  'face': (4, 5, 1),
  'photo': (2, 3, 3),
}
RAGGED = ('eeg', 'pulse', 'words')


def make_rows(n=N, seed=0, prefix='s'):
  """n samples as lists of arrays, sequences of any length up to the longest of SHAPES, which occurs."""
  rng = np.random.default_rng(seed)

  def lengths(longest):
    return [longest, *rng.integers(1, longest, n - 1)]

  return {
    'eeg': [rng.normal(size=(t, 3)) for t in lengths(9)],
    'pulse': [rng.normal(size=t).astype(np.float32) for t in lengths(6)],
    'pose': [rng.normal(size=4).astype(np.float16) for _ in range(n)],
    'age': [int(a) for a in rng.integers(20, 80, n)],
    'words': [rng.integers(2, 50, t) for t in lengths(5)],
    'face': [rng.integers(1, 256, (4, 5)).astype(np.uint8) for _ in range(n)],
    'photo': [rng.normal(size=(2, 3, 3)).astype(np.float32) for _ in range(n)],
    'mood': [i % 3 for i in range(n)],
    'part': [('train', 'train', 'valid', 'test')[i % 4] for i in range(n)],
    'who': [f'{prefix}{i}' for i in range(n)],
  }


def pad(rows):
  """A list of arrays of different lengths as one array."""
  longest = max(len(r) for r in rows)
  return np.stack([np.pad(r, [(0, longest - len(r))] + [(0, 0)] * (r.ndim - 1)) for r in rows])


def write_npz(path, rows, *, save=np.savez, lengths=True):
  path.parent.mkdir(parents=True, exist_ok=True)
  arrays = {}
  for name, values in rows.items():
    ragged = name in RAGGED and isinstance(values, list)
    if ragged and lengths:
      arrays[f'{name}_length'] = np.array([len(v) for v in values])
    arrays[name] = pad(values) if ragged else np.array(values)
  save(path, **arrays)


def write_parquet(path, rows, **options):
  path.parent.mkdir(parents=True, exist_ok=True)
  columns = {n: [v.tolist() if isinstance(v, np.ndarray) else v for v in values] for n, values in rows.items()}
  pq.write_table(pa.table(columns), path, row_group_size=5, **options)


def empty_arrays():
  arrays = {n: (pad(v) if n in RAGGED else np.array(v))[:0] for n, v in make_rows().items()}
  return arrays | {f'{n}_length': np.zeros(0, int) for n in RAGGED}


WRITERS = {
  'npz': lambda folder, rows: write_npz(folder / 'data.npz', rows),
  'compressed': lambda folder, rows: write_npz(folder / 'data.npz', rows, save=np.savez_compressed),
  'zeros': lambda folder, rows: write_npz(folder / 'data.npz', rows, lengths=False),
  'parquet': lambda folder, rows: write_parquet(folder / 'data.parquet', rows),
}


def make_folder(folder, toml=TOML, rows=None, writer='npz'):
  folder.mkdir(parents=True, exist_ok=True)
  (folder / 'dataset.toml').write_text(toml)
  WRITERS[writer](folder, make_rows() if rows is None else rows)
  return folder


def load(folder, tmp_path):
  return load_dataset('folder', folder=str(folder), tfds_dir=str(tmp_path / 'tfds'))


def index_of(folder):
  """Everything but writing: split of each id, label of each id, and the survey."""
  found = survey_folder(read_description(str(folder)))
  rows = make_index(found)
  splits = {i: SPLITS[s] for r in rows for i, s in zip(r.ids, r.splits, strict=True)}
  return splits, {i: label for r in rows for i, label in zip(r.ids, r.labels, strict=True)}, found


def message_of(folder, tmp_path):
  with pytest.raises(UserError) as caught:
    load(folder, tmp_path)
  assert '\n' not in str(caught.value)
  return str(caught.value)


def as_stored(name, value):
  """One value as the data set stores it, and its length."""
  value = np.asarray(value)
  value = value.astype(np.int32 if name == 'words' else np.float32)
  shape = SHAPES[name]
  if value.ndim < len(shape):
    value = value[..., None]
  return np.pad(value, [(0, shape[0] - len(value))] + [(0, 0)] * (value.ndim - 1)), len(value)
