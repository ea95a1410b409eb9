"""The user's own folder: what is written comes back bit for bit, splits hold still, and every mistake is told."""

import builtins
import contextlib
import io
import os
import pathlib
import tracemalloc
import zipfile

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from dream_jax.data.builders.folder.description import read_description
from dream_jax.data.builders.folder.index import make_index, position
from dream_jax.data.builders.folder.survey import survey_folder
from dream_jax.data.builders.folder.tables import Wanted, open_table
from dream_jax.data.catalogue import builder_class
from dream_jax.data.datasets import load_dataset
from dream_jax.errors import UserError
from dream_jax.flags import load_config

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


def _empty():
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


@pytest.mark.parametrize('writer', WRITERS)
def test_every_kind_comes_back_bit_for_bit(writer, tmp_path, capsys):
  rows = make_rows()
  dataset = load(make_folder(tmp_path / 'data', rows=rows, writer=writer), tmp_path)
  assert {m.name: m.shape for m in dataset.spec.modalities} == SHAPES
  assert list(dataset.spec.names) == list(SHAPES)
  assert dataset.spec.name == 'my study'
  assert (dataset.spec.task, dataset.spec.num_outputs, dataset.spec.data_kind) == ('multiclass', 3, 'real')
  seen = 0
  for name, split in dataset.splits.items():
    for i, who in enumerate(split.ids):
      row = rows['who'].index(who)
      assert {'valid': 'validation'}.get(rows['part'][row], rows['part'][row]) == name
      assert split.label[i] == rows['mood'][row]
      for modality in SHAPES:
        expected, length = as_stored(modality, rows[modality][row])
        found = split.features[modality][i]
        assert found.dtype == expected.dtype
        assert found.tobytes() == expected.tobytes(), modality
        if modality in RAGGED:
          assert split.features[f'{modality}_length'][i] == length
      seen += 1
  assert seen == N
  out = capsys.readouterr().out
  assert 'my study: 13 samples (train 7, validation 3, test 3), multiclass, 3 classes' in out
  assert {'parquet': 'lengths of the lists', 'zeros': 'no eeg_length'}.get(writer, 'from eeg_length') in out


def test_several_files_share_a_shape_and_max_length_cuts(tmp_path, capsys):
  toml = TOML.replace('eeg = "sequence"', 'eeg = { kind = "sequence", max_length = 7 }').replace('id = "who"\n', '')
  folder = make_folder(tmp_path / 'data', toml)
  more = make_rows(seed=1)
  more['pulse'] = [np.ones(11, np.float32), *more['pulse'][1:]]
  write_npz(folder / 'more.npz', more)
  np.savez(folder / 'nothing.npz', **_empty())
  dataset = load(folder, tmp_path)
  assert dataset.spec.modalities[0].shape == (7, 3)
  assert dataset.spec.modalities[1].shape == (11, 1)
  test = dataset.splits['test']
  assert list(test.ids) == ['data.npz:11', 'data.npz:3', 'data.npz:7', 'more.npz:11', 'more.npz:3', 'more.npz:7']
  np.testing.assert_array_equal(test.features['age'][-1], [more['age'][7]])
  train = dataset.splits['train']
  first = list(train.ids).index('more.npz:0')
  assert train.features['eeg_length'][first] == 7
  np.testing.assert_array_equal(train.features['eeg'][first], more['eeg'][0][:7].astype(np.float32))
  assert train.features['pulse_length'].max() == 11
  cut = sum(len(v) > 7 for v in make_rows()['eeg'] + more['eeg'])
  assert f'{cut} cut to 7' in capsys.readouterr().out


def test_arrays_under_other_names_and_values_beyond_the_length(tmp_path):
  toml = 'task = "regression"\nlabel = "y"\nsplits = "part"\nlabel_range = [-3, 3]\ndata_kind = "synthetic"\n'
  toml += '[modalities]\n'
  toml += 'speech = { kind = "tokens", array = "ids", length = "n", unk_id = 3 }\n'
  toml += 'motion = { kind = "sequence", array = "imu" }'
  rng = np.random.default_rng(0)
  arrays = {
    'ids': rng.integers(1, 9, (6, 4)),
    'n': np.array([1, 2, 3, 4, 4, 4]),
    'imu': np.asfortranarray(rng.normal(size=(6, 5, 2))),
    'imu_lengths': np.array([5, 4, 3, 2, 1, 5.0]),
    'y': rng.uniform(-3, 3, (6, 1)),
    'part': np.array([b'train', b'train', b'val', b'dev', b'test', b'test']),
  }
  arrays['ids'][0, 1:] = -100  # What some tokenizers pad with.
  arrays['ids'][1, 2:] = 99  # No id: it lies beyond the length.
  arrays['ids'][5, 0] = 8
  folder = tmp_path / 'data'
  folder.mkdir()
  (folder / 'dataset.toml').write_text(toml)
  np.savez(folder / 'a.npz', **arrays)
  dataset = load(folder, tmp_path)
  assert dataset.spec.name == 'data'
  assert dataset.spec.data_kind == 'synthetic'
  assert dataset.spec.label_range == (-3.0, 3.0)
  assert (dataset.spec.modalities[0].vocab_size, dataset.spec.modalities[0].unk_id) == (9, 3)
  train = dataset.splits['train']
  np.testing.assert_array_equal(train.features['speech'][0], [arrays['ids'][0, 0], 0, 0, 0])
  np.testing.assert_array_equal(train.features['speech_length'], [1, 2])
  np.testing.assert_array_equal(train.features['motion'][1, :4], arrays['imu'][1, :4].astype(np.float32))
  assert not train.features['motion'][1, 4:].any()
  np.testing.assert_array_equal(train.label, arrays['y'][:2, 0].astype(np.float32))


def _by_fractions(who, part):
  del part
  return SPLITS[int(np.searchsorted([0.5, 0.7], position(who), 'right'))]


def _by_column(who, part):
  del who
  return {'valid': 'validation'}.get(part, part)


@pytest.mark.parametrize('writer', ['npz', 'parquet'])
@pytest.mark.parametrize(
  ('splits', 'expected'),
  [('"part"', _by_column), ('{ train = 0.5, validation = 0.2, test = 0.3 }', _by_fractions)],
)
def test_splits_by_column_and_by_fractions(splits, expected, writer, tmp_path):
  rows = make_rows(40)
  found, _, _ = index_of(make_folder(tmp_path / 'data', TOML.replace('"part"', splits), rows, writer))
  assert found == {w: expected(w, p) for w, p in zip(rows['who'], rows['part'], strict=True)}


@pytest.mark.parametrize('writer', ['npz', 'parquet'])
@pytest.mark.parametrize('validation', ['["b.FORMAT", "b*"]', '"[b].FORMAT"', '0.5'])
def test_splits_by_files(validation, writer, tmp_path):
  splits = f'{{ train = "a*", val = {validation}, test = "sub/**/c.*" }}'.replace('FORMAT', writer)
  folder, rows = tmp_path / 'data', make_rows(20)
  write = {'npz': write_npz, 'parquet': write_parquet}[writer]
  parts = {'a': slice(0, 10), '[b]' if validation[1] == '[' else 'b': slice(10, 14), 'sub/x/y/c': slice(14, 20)}
  for name, span in parts.items():
    write(folder / f'{name}.{writer}', {k: v[span] for k, v in rows.items()})
  (folder / 'dataset.toml').write_text(TOML.replace('"part"', splits))
  wanted = dict(zip(rows['who'], ['train'] * 10 + ['validation'] * 4 + ['test'] * 6, strict=True))
  if validation == '0.5':
    wanted = {w: 'validation' if s == 'train' and position(w) < 0.5 else s for w, s in wanted.items()}
    wanted = {w: s for w, s in wanted.items() if w not in rows['who'][10:14]}
    assert set(wanted.values()) == set(SPLITS)
  assert index_of(folder)[0] == wanted


def test_hashed_splits_hold_still_and_keep_groups_together(tmp_path):
  toml = TOML.replace('"part"', '{ train = 0.6, validation = 0.2, test = 0.2 }')
  rows, more = make_rows(400), make_rows(200, seed=7, prefix='t')
  few, _, _ = index_of(make_folder(tmp_path / 'few', toml, rows))
  joined = {k: more[k][:100] + rows[k][::-1] + more[k][100:] for k in rows}
  many, _, _ = index_of(make_folder(tmp_path / 'many', toml, joined))
  assert {i: many[i] for i in few} == few
  shares = [list(many.values()).count(s) / len(many) for s in SPLITS]
  np.testing.assert_allclose(shares, [0.6, 0.2, 0.2], atol=0.06)
  rows['speaker'] = [i % 40 for i in range(400)]
  grouped, _, _ = index_of(make_folder(tmp_path / 'grouped', 'group = "speaker"\n' + toml, rows))
  homes = [{grouped[f's{i}'] for i in range(speaker, 400, 40)} for speaker in range(40)]
  assert all(len(home) == 1 for home in homes)
  assert set.union(*homes) == set(SPLITS)
  rows['speaker'] = [f'{s}' for s in rows['speaker']]  # A number and its text are one name.
  assert index_of(make_folder(tmp_path / 'text', 'group = "speaker"\n' + toml, rows))[0] == grouped


def test_position_is_fixed_for_ever():
  # sha256('split\0abc') begins 15 bc 9b c8 96 23 b2: another value would move every sample of every user.
  assert position('abc') == int.from_bytes(bytes.fromhex('15bc9bc89623b2'), 'little') / 2**56
  assert 0 <= min(position(str(i)) for i in range(2000)) < 0.01
  assert 0.99 < max(position(str(i)) for i in range(2000)) < 1


TARGETS = {
  'regression': ('regression', '', [0.5, -2, 1e-3, 7] * 2, np.float32, 1, ()),
  'binary from bool': ('binary', '', [True, False] * 4, np.int32, 1, ()),
  'binary from text': ('binary', 'classes = ["no", "yes"]', ['yes', 'no'] * 4, [1, 0] * 4, 1, ('no', 'yes')),
  'binary from floats': ('binary', '', [1.0, 0.0] * 4, np.int32, 1, ()),
  'multiclass counted': ('multiclass', '', [2, 0, 1, 3] * 2, np.int32, 4, ()),
  'multiclass from text': ('multiclass', '', ['b', 'a', 'c', 'a'] * 2, [1, 0, 2, 0] * 2, 3, ('a', 'b', 'c')),
  'multiclass named': ('multiclass', 'classes = ["x", "a", "b"]', ['b', 'a'] * 4, [2, 1] * 4, 3, ('x', 'a', 'b')),
  'multiclass numbered': ('multiclass', 'classes = ["x", "a", "b"]', [0, 1] * 4, np.int32, 3, ('x', 'a', 'b')),
  'multilabel': ('multilabel', '', [[1, 0, 0], [1, 1, 0]] * 4, np.float32, 3, ()),
  'multilabel named': ('multilabel', 'classes = ["a", "b"]', [[1, 0], [0, 0]] * 4, np.float32, 2, ('a', 'b')),
}


@pytest.mark.parametrize('writer', ['npz', 'parquet'])
@pytest.mark.parametrize('name', TARGETS)
def test_targets_of_every_task(name, writer, tmp_path):
  task, classes, values, expected, num_outputs, names = TARGETS[name]
  rows = make_rows(8)
  rows['mood'] = values
  toml = f'{classes}\n' + TOML.replace('task = "multiclass"', f'task = "{task}"')
  _, labels, found = index_of(make_folder(tmp_path / 'data', toml, rows, writer))
  assert (found.spec.task, found.spec.num_outputs, found.spec.class_names) == (task, num_outputs, names)
  expected = np.array(expected, np.int32) if isinstance(expected, list) else np.array(values, expected)
  stacked = np.stack(list(labels.values()))
  assert stacked.dtype == expected.dtype
  np.testing.assert_array_equal(stacked, expected)


@pytest.mark.parametrize('classes', ['', 'classes = ["glad", "calm", "odd"]\n'])
def test_lists_of_names_are_a_multilabel_target(classes, tmp_path):
  rows = make_rows(8)
  rows['mood'] = [['glad'], ['calm', 'glad'], [], ['calm']] * 2
  toml = classes + TOML.replace('"multiclass"', '"multilabel"')
  dataset = load(make_folder(tmp_path / 'data', toml, rows, 'parquet'), tmp_path)
  assert dataset.spec.class_names == (('glad', 'calm', 'odd') if classes else ('calm', 'glad'))
  expected = [[1, 0, 0], [1, 1, 0], [0, 0, 0], [0, 1, 0]] if classes else [[0, 1], [1, 1], [0, 0], [1, 0]]
  for split in dataset.splits.values():
    for who, label in zip(split.ids, split.label, strict=True):
      np.testing.assert_array_equal(label, np.array(expected[int(who[1:]) % 4], np.float32))


def test_null_is_a_missing_modality_with_the_length_of_another_sample(tmp_path, capsys):
  rows = make_rows(40)
  rows['part'] = (['train'] * 30 + ['validation'] * 5 + ['test'] * 5)[:40]
  for i, v in enumerate(rows['eeg']):
    rows['eeg'][i] = np.concatenate([v] * 9)[: 4 if i < 30 else 9]  # Lengths tell the split.
  gone = [1, 3, 31, 36]
  for name in SHAPES:
    for i in gone:
      rows[name][i] = None
  rows['eeg'][5], rows['words'][5] = [], []  # A list without entries is no content either.
  rows['eeg'][6] = [[1.0, None, 2.0], None, [3.0, 4.0, 5.0]]
  rows['words'][6] = [7, None]
  rows['photo'][6] = [[[1.0, 2.0, 3.0]] * 3, None]
  dataset = load(make_folder(tmp_path / 'data', rows=rows, writer='parquet'), tmp_path)
  out = capsys.readouterr().out
  assert 'pose: vector [4]; missing in 4 samples' in out
  assert 'eeg: sequence [9, 3]; lengths of the lists; missing in 5 samples' in out
  assert dataset.non_finite == {'eeg': 4, 'pulse': 0, 'pose': 0, 'age': 0, 'words': 0, 'face': 0, 'photo': 9}
  for name, split in dataset.splits.items():
    for i, who in enumerate(split.ids):
      if int(who[1:]) in (*gone, 5):
        length = split.features['eeg_length'][i]
        assert length == (4 if name == 'train' else 9)
        words = split.features['words'][i]
        assert 1 <= split.features['words_length'][i] <= 5
        np.testing.assert_array_equal(words, np.arange(5) < split.features['words_length'][i])  # unk_id is 1.
        assert not split.features['eeg'][i].any()
      if int(who[1:]) in gone:
        assert not any(split.features[m][i].any() for m in ('pulse', 'pose', 'age', 'face', 'photo'))
  train = dataset.splits['train']
  six = list(train.ids).index('s6')
  np.testing.assert_array_equal(train.features['eeg'][six, :4], [[0, 0, 0], [0, 0, 0], [3, 4, 5], [0, 0, 0]])
  assert train.features['eeg_length'][six] == 3
  np.testing.assert_array_equal(train.features['words'][six], [7, 1, 0, 0, 0])
  assert not train.features['photo'][six].any()
  drawn = [train.features['pulse_length'][list(train.ids).index(f's{i}')] for i in (1, 3)]
  again = load_dataset('folder', folder=str(tmp_path / 'data'), tfds_dir=str(tmp_path / 'again')).splits['train']
  assert [again.features['pulse_length'][list(again.ids).index(f's{i}')] for i in (1, 3)] == drawn


def test_a_file_may_lack_a_modality(tmp_path):
  folder = make_folder(tmp_path / 'data', writer='parquet')
  rows = make_rows(seed=1, prefix='t')
  write_parquet(folder / 'more.parquet', rows | {name: [None] * N for name in SHAPES})
  dataset = load(folder, tmp_path)
  assert {m.name: m.shape for m in dataset.spec.modalities} == SHAPES
  for split in dataset.splits.values():
    for i, who in enumerate(split.ids):
      for name in SHAPES:
        if who[0] == 't' and name != 'words':
          assert not split.features[name][i].any()
        else:
          assert split.features[name][i].any()
      assert who[0] == 's' or split.features['words'][i].max() == 1
      assert min(split.features[f'{name}_length'][i] for name in RAGGED) >= 1


def test_padded_rows_of_zeros_or_nan_are_missing_and_nan_inside_counts_as_missing_frames(tmp_path):
  rows = make_rows(20)
  eeg = pad(rows['eeg'])
  eeg[0] = 0
  eeg[1] = np.nan
  eeg[2, 4:] = np.nan
  eeg[2, :4] = 1
  eeg[2, 1, 0] = np.nan
  rows['eeg'] = eeg
  rows['eeg_length'] = np.full(20, 9)
  dataset = load(make_folder(tmp_path / 'full', rows=rows), tmp_path)
  assert dataset.non_finite['eeg'] == 9 * 3 + 5 * 3 + 1
  del rows['eeg_length']
  dataset = load(make_folder(tmp_path / 'data', rows=rows), tmp_path)
  assert dataset.non_finite['eeg'] == 1
  known = {who: (split, i) for split in dataset.splits.values() for i, who in enumerate(split.ids)}
  for who in ('s0', 's1'):
    split, i = known[who]
    assert split.features['eeg_length'][i] >= 1
    assert not split.features['eeg'][i].any()
  split, i = known['s2']
  assert split.features['eeg_length'][i] == 4
  np.testing.assert_array_equal(split.features['eeg'][i, :4, 1], [1, 0, 1, 1])


def test_fixed_size_lists_are_padded_rows(tmp_path):
  rows = make_rows()
  columns = {n: pa.array([np.asarray(v).tolist() for v in values]) for n, values in rows.items()}
  eeg = pad(rows['eeg'])
  width = pa.FixedSizeListArray.from_arrays(pa.array(eeg.ravel()), 3)
  columns['eeg'] = pa.FixedSizeListArray.from_arrays(width, 9, mask=pa.array(np.arange(N) == 7))
  columns['mood'] = columns['mood'].cast(pa.int8()).dictionary_encode()
  columns['who'] = columns['who'].dictionary_encode()
  folder = make_folder(tmp_path / 'data')
  (folder / 'data.npz').unlink()
  pq.write_table(pa.table(columns), folder / 'data.parquet', row_group_size=4)
  dataset = load(folder, tmp_path)
  split = dataset.splits['test']
  for i, who in enumerate(split.ids):
    if who == 's7':
      assert not split.features['eeg'][i].any()
      continue
    assert split.features['eeg_length'][i] == len(rows['eeg'][int(who[1:])])
    np.testing.assert_array_equal(split.features['eeg'][i], eeg[int(who[1:])].astype(np.float32))


def test_a_changed_folder_is_another_data_set(tmp_path):
  folder = make_folder(tmp_path / 'data')
  names = []

  def name():
    names.append(builder_class('folder').config_from_options(None, {}, str(folder)).name)
    return names[-1]

  assert name().startswith('my_study_')
  assert name() == names[0]
  os.utime(folder / 'data.npz', ns=(1, 1))
  assert name() not in names[:-1]  # Another time,
  write_npz(folder / 'data.npz', make_rows(N + 1))
  os.utime(folder / 'data.npz', ns=(1, 1))
  assert name() not in names[:-1]  # another size at the same time,
  (folder / 'dataset.toml').write_text(TOML + '# A remark.\n')
  assert name() not in names[:-1]  # another description,
  os.rename(folder / 'data.npz', folder / 'other.npz')
  assert name() not in names[:-1]  # another name of a file: it may be part of the ids;
  os.rename(folder, tmp_path / 'moved')
  folder = tmp_path / 'moved'
  assert name() == names[-2]  # but the same in another place.


def test_a_changed_folder_is_prepared_anew_and_an_unchanged_one_is_not(tmp_path, capsys):
  folder = make_folder(tmp_path / 'data')
  assert len(load(folder, tmp_path).splits['train']) == 7
  assert 'preparing data set folder/my_study_' in capsys.readouterr().out
  load(folder, tmp_path)
  assert capsys.readouterr().out == ''
  write_npz(folder / 'data.npz', make_rows(N + 3))
  write_npz(folder / 'unread.npz', make_rows(N))
  (folder / 'dataset.toml').write_text(TOML.replace('"part"', '{ train = "data.npz", val = 0.5, test = "data2.npz" }'))
  write_npz(folder / 'data2.npz', make_rows(5, prefix='t'))
  changed = load(folder, tmp_path)
  assert {name: len(split) for name, split in changed.splits.items() if name == 'test'} == {'test': 5}
  assert sum(map(len, changed.splits.values())) == N + 3 + 5
  assert 'unread.npz: in no split, not read' in capsys.readouterr().out


@pytest.mark.parametrize('writer', ['compressed', 'parquet'])
def test_rows_are_streamed(writer, tmp_path):
  n, shape = 400, (200, 64)  # 20 MB as float32, in one file and one row group.
  rng = np.random.default_rng(0)
  row = rng.normal(size=shape).astype(np.float32)
  path = tmp_path / ('a.parquet' if writer == 'parquet' else 'a.npz')
  if writer == 'parquet':
    flat = pa.FixedSizeListArray.from_arrays(pa.array(np.tile(row.ravel(), n)), 64)
    column = pa.FixedSizeListArray.from_arrays(flat, 200)
    pq.write_table(pa.table({'x': column, 'y': np.zeros(n)}), path, row_group_size=n, use_dictionary=False)
  else:
    np.savez_compressed(path, x=np.tile(row, (n, 1, 1)), y=np.zeros(n))
  table = open_table(str(path))
  table.expect_rows('y', ['x'])
  before = pa.total_allocated_bytes()
  tracemalloc.start()
  most, count = 0, 0
  for (frames,) in table.rows([Wanted('x', shape)]):
    if count % 50 == 0:
      np.testing.assert_array_equal(frames, row)
    most, count = max(most, pa.total_allocated_bytes() - before), count + 1
  most += tracemalloc.get_traced_memory()[1]
  tracemalloc.stop()
  assert count == n
  assert most < 8 * 2**20, most


class Payload:
  def __init__(self, path):
    self.path = path

  def __reduce__(self):
    return os.system, (f'touch {self.path}',)


@pytest.mark.parametrize('name', ['pose', 'mood', 'unused'])
def test_no_pickle_is_opened(name, tmp_path):
  trace = tmp_path / 'trace'
  rows = make_rows()
  rows[name] = np.array([Payload(trace)] * N, dtype=object)
  folder = make_folder(tmp_path / 'data', rows=rows)
  if name == 'unused':
    index_of(folder)  # What nobody asks for disturbs nobody.
  else:
    message = message_of(folder, tmp_path)
    assert f"{folder}/data.npz: array '{name}' holds Python objects" in message
    assert 'pickles are not opened' in message
  assert not trace.exists()
  with np.load(folder / 'data.npz', allow_pickle=True) as archive, contextlib.suppress(Exception):
    archive[name]
  assert trace.exists()  # The payload works where it is not refused.


def _toml(old, new):
  def change(folder):
    path = folder / 'dataset.toml'
    assert old in path.read_text()
    path.write_text(path.read_text().replace(old, new))

  return change


def _rows(**changes):
  """A folder whose arrays are changed: a function of the rows, or None for absent."""

  def change(folder):
    rows = make_rows()
    for name, value in changes.items():
      if value is None:
        del rows[name]
      else:
        rows[name] = value(rows.get(name)) if callable(value) else value
    write_npz(folder / 'data.npz', rows)

  return change


def _parquet(**changes):
  def change(folder):
    (folder / 'data.npz').unlink()
    rows = make_rows()
    for name, value in changes.items():
      rows[name] = value(rows.get(name)) if callable(value) else value
    write_parquet(folder / 'data.parquet', rows)

  return change


def _set(row, value):
  return lambda values: [value if i == row else v for i, v in enumerate(values)]


def _set_token(value):
  def change(values):
    values[3] = np.array([2, value])
    return values

  return change


def _both(*changes):
  return lambda folder: [change(folder) for change in changes]


def _more(name='more.npz', **changes):
  """A second file."""

  def change(folder):
    rows = make_rows(seed=1, prefix='t')
    for key, value in changes.items():
      rows[key] = value(rows[key]) if callable(value) else value
    write_npz(folder / name, rows)

  return change


def _truncate(name, share):
  def change(folder):
    if name.endswith('.parquet'):
      _parquet()(folder)
    data = (folder / name).read_bytes()
    (folder / name).write_bytes(data[: int(len(data) * share)])

  return change


def _damage(folder):
  """Flips bytes of the compressed content, which the directory of the archive does not tell."""
  write_npz(folder / 'data.npz', make_rows(), save=np.savez_compressed)
  with zipfile.ZipFile(folder / 'data.npz') as archive:
    entry = archive.getinfo('eeg.npy')
  data = bytearray((folder / 'data.npz').read_bytes())
  start = entry.header_offset + entry.compress_size // 2
  data[start : start + 8] = b'\x00\xff' * 4
  (folder / 'data.npz').write_bytes(data)


def _rewrite_member(edit):
  """The archive with the bytes of eeg.npy edited; its checksums fit."""

  def change(folder):
    with zipfile.ZipFile(folder / 'data.npz') as archive:
      members = {n: archive.read(n) for n in archive.namelist()}
    members['eeg.npy'] = edit(members['eeg.npy'])
    with zipfile.ZipFile(folder / 'data.npz', 'w') as archive:
      for name, data in members.items():
        archive.writestr(name, data)

  return change


def _npy(array):
  stream = io.BytesIO()
  np.save(stream, array)
  return stream.getvalue()


def _unlink(folder):
  (folder / 'data.npz').unlink()


_GROUP = _toml('id = ', 'group = "speaker"\nid = ')

ERRORS = {
  'no toml': (lambda f: (f / 'dataset.toml').unlink(), 'has no dataset.toml; found data.npz: write one with task'),
  'invalid toml': (_toml('task = ', 'task = multi'), 'is not valid TOML: Invalid value (at line 3, column 8)'),
  'toml is no text': (lambda f: (f / 'dataset.toml').write_bytes(b'\xff\xfe'), 'cannot be read'),
  'unknown key': (_toml('label =', 'lable ='), "unknown key 'lable'; did you mean label?"),
  'unknown key of a modality': (
    _toml('vocab_size', 'vocabsize'),
    "'modalities.words.vocabsize'; did you mean vocab_size?",
  ),
  'no label': (_toml('label = "mood"', ''), 'has no label; expected text in quotes, the name of an array or column'),
  'label is a number': (_toml('"mood"', '3'), 'label is 3; expected text in quotes'),
  'unknown task': (_toml('multiclass', 'multilable'), 'task is "multilable"; expected one of regression'),
  'unknown kind': (_toml('pose = "vector"', 'pose = "vectors"'), 'modalities.pose.kind is "vectors"; expected one of'),
  'kind is a number': (_toml('pose = "vector"', 'pose = 3'), 'modalities.pose.kind is 3; expected one of sequence'),
  'key below modalities': (_toml('[modalities]', '[modalities]\ngroup = "x"'), 'group stands below [modalities]; move'),
  'one modality': (
    lambda f: (f / 'dataset.toml').write_text(TOML.split('pulse')[0]),
    'has 1 modalities (eeg); expected at least 2',
  ),
  'no modalities': (
    lambda f: (f / 'dataset.toml').write_text(TOML.split('[')[0]),
    'has no modalities; expected a table',
  ),
  'modality called label': (_toml('pose = ', 'label = '), "a modality is called 'label'; expected letters"),
  'modality with a space': (_toml('pose = ', '"my pose" = '), "a modality is called 'my pose'; expected letters"),
  'length as a modality': (_toml('face = ', 'eeg_length = "vector"\nface = '), 'called like the lengths of eeg'),
  'vocab_size of a vector': (
    _toml('"vector"\nage', '{ kind = "vector", vocab_size = 4 }\nage'),
    'modalities.pose has vocab_size, which kind vector does not take',
  ),
  'unk_id too large': (_toml('= 50', '= 50, unk_id = 50'), 'unk_id is 50; expected an id below vocab_size = 50'),
  'vocab_size as text': (_toml('= 50', '= "50"'), 'vocab_size is "50"; expected a whole number from 2'),
  'no splits': (_toml('splits = "part"', ''), 'has no splits; expected splits = { train = 0.7'),
  'a split less': (_toml('"part"', '{ train = 0.8, test = 0.2 }'), 'splits lacks validation; expected'),
  'unknown split': (_toml('"part"', '{ train = 0.8, tset = 0.2 }'), "unknown key 'splits.tset'; did you mean test?"),
  'fractions': (_toml('"part"', '{ train = 0.8, validation = 0.1, test = 0.2 }'), 'sum to 1.1; expected 1'),
  'a fraction of 0': (_toml('"part"', '{ train = 0.8, validation = 0.0, test = 0.2 }'), 'splits.validation is 0.0'),
  'a mixture': (_toml('"part"', '{ train = 0.8, validation = 0.2, test = "data.npz" }'), 'mixes fractions and files'),
  'files that are not there': (
    _toml('"part"', '{ train = "data.npz", validation = 0.2, test = "tset*.npz" }'),
    "splits.test names 'tset*.npz'; no such file among data.npz, dataset.toml (in",
  ),
  'a file twice': (
    _toml('"part"', '{ train = "data.npz", validation = 0.2, test = "d*.npz" }'),
    'splits train and test',
  ),
  'a text file': (_toml('"part"', '{ train = "data.npz", validation = 0.2, test = "*.toml" }'), 'expected .npz or'),
  'no data': (_unlink, 'no .npz or .parquet file among dataset.toml (in DATA); put the data there'),
  'both formats': (lambda f: write_parquet(f / 'b.parquet', make_rows()), 'found .npz and .parquet files side by side'),
  'the label as a modality': (_toml('pose = ', 'mood = '), "modality mood is the label 'mood'; remove it"),
  'infinite class': (_rows(mood=_set(4, np.inf)), "'mood' is inf in row 4; expected a whole number, the class"),
  'infinite length': (_rows(eeg=lambda v: pad(v), eeg_length=np.full(N, np.inf)), "'eeg_length' is inf in row 0"),
  'huge token': (
    _both(_toml(', vocab_size = 50', ''), _rows(words=_set_token(2**31))),
    "array 'words': 2147483649 token ids; expected at most 2147483647",
  ),
  'one class': (_toml('id =', 'classes = ["a"]\nid ='), "classes is ['a']; expected at least two names"),
  'classes twice': (_toml('id =', 'classes = ["a", "a"]\nid ='), 'expected different names'),
  'classes of numbers': (_toml('id =', 'classes = [0, 1]\nid ='), 'expected a list of names in quotes'),
  'label_range': (_toml('id =', 'label_range = [0, 1]\nid ='), 'expected [LOWEST, HIGHEST] of a regression task'),
  'data_kind': (_toml('id =', 'data_kind = "simulated"\nid ='), 'expected one of real, synthetic'),
  # The arrays.
  'no array': (_rows(pose=None), "data.npz has no array 'pose'; found eeg_length, eeg, pulse_length, pulse, age"),
  'nearly an array': (_rows(pose=None, poses=make_rows()['pose']), 'did you mean poses or pulse?'),
  'no label array': (_rows(mood=None), "has no array 'mood'"),
  'no length array': (
    _toml('eeg = "sequence"', 'eeg = { kind = "sequence", length = "n" }'),
    "has no array 'n'; found",
  ),
  'rank': (
    _rows(pose=np.zeros((N, 2, 2, 2))),
    "array 'pose' has 4 axes; expected [N, D], or [N] for D = 1 for kind vector",
  ),
  'rank of tokens': (
    _rows(words=np.zeros((N, 2, 2), int)),
    "array 'words' has 3 axes; expected [N, T] for kind tokens",
  ),
  'tokens without time': (_rows(words=np.ones(N, int)), "array 'words' has 1 axes; expected [N, T] for kind tokens"),
  'a single value': (_rows(pose=np.zeros(())), "array 'pose' is a single value"),
  'rows': (_rows(pose=np.zeros((N - 1, 4))), "array 'pose' has 12 rows and 'mood' 13; expected the same"),
  'no rows': (lambda f: np.savez(f / 'data.npz', **_empty()), 'holds no sample; expected rows in DATA/data.npz'),
  'text for numbers': (_rows(pose=np.full((N, 4), 'a')), "array 'pose' holds text; expected numbers (modality pose)"),
  'complex': (_rows(pose=np.zeros((N, 4), complex)), "array 'pose' holds complex128; expected numbers"),
  'fractions for tokens': (
    _rows(words=np.zeros((N, 4))),
    'holds numbers with a fraction; expected whole numbers, the ids',
  ),
  'negative token': (_rows(words=_set_token(-1)), "array 'words', row 3: token id -1; expected 0 to 49"),
  'large token': (_rows(words=_set_token(50)), "array 'words', row 3: token id 50; expected 0 to 49: raise vocab_size"),
  'long length': (
    _rows(eeg=lambda v: pad(v), eeg_length=np.full(N, 10)),
    "'eeg_length' is 10 in row 0; expected a whole",
  ),
  'half a length': (_rows(eeg=lambda v: pad(v), eeg_length=np.full(N, 1.5)), "'eeg_length' is 1.5 in row 0"),
  'length of text': (_rows(eeg=lambda v: pad(v), eeg_length=np.full(N, 'a')), 'is no list of lengths'),
  'empty array': (_rows(pose=np.zeros((N, 0))), "array 'pose' holds nothing in any row"),
  'shapes of files': (_more(pose=np.ones((N, 5))), "'pose' has samples of shape (5,) and"),
  'lengths in one file alone': (
    _more(eeg=lambda v: pad(v)),
    "more.npz has no array 'eeg_length', and DATA/data.npz has; expected it in all files or none",
  ),
  # Labels.
  'class outside': (
    _both(_toml('id =', 'classes = ["a", "b"]\nid ='), _rows()),
    "array 'mood' is 2 in row 2; expected a whole number from 0 to 1, places in classes",
  ),
  'negative class': (_rows(mood=_set(4, -1)), "array 'mood': found -1, 0, 1, 2; expected classes 0, 1, 2"),
  'classes from 1': (_rows(mood=lambda v: [m + 1 for m in v]), '0 never occurs, 3 does; expected classes 0, 1, 2'),
  'half a class': (_rows(mood=_set(4, 1.5)), "'mood' is 1.5 in row 4; expected a whole number, the class"),
  'unknown class': (
    _both(_toml('id =', 'classes = ["calm", "glad"]\nid ='), _rows(mood=['calm', 'gald'] * 6 + ['calm'])),
    "'mood' is 'gald' in row 1; expected one of the classes; did you mean glad?",
  ),
  'one-hot': (_rows(mood=np.eye(N)), 'expected [N], one target a sample; say task = "multilabel" if several'),
  'regression with nan': (
    _both(_toml('multiclass', 'regression'), _rows(mood=_set(4, np.nan))),
    "'mood' is nan in row 4; expected a finite number",
  ),
  'regression of text': (
    _both(_toml('multiclass', 'regression'), _rows(mood=['a'] * N)),
    "'mood' holds text; expected numbers, the target of task regression",
  ),
  'beyond label_range': (
    _both(_toml('multiclass', 'regression'), _toml('id =', 'label_range = [-1, 1]\nid ='), _rows()),
    "'mood' is 2 in row 2; expected label_range = [-1, 1]",
  ),
  'binary of text': (_both(_toml('multiclass', 'binary'), _rows(mood=['a'] * N)), 'name what is 0 and what is 1 in'),
  'binary of three': (
    _both(_toml('multiclass', 'binary'), _rows()),
    "'mood' is 2 in row 2; expected a whole number from 0 to 1",
  ),
  'multilabel of two': (
    _both(_toml('multiclass', 'multilabel'), _rows(mood=lambda v: np.array([[0, m] for m in v]))),
    "'mood' is 2 in row 2; expected 0 or 1 for every label",
  ),
  'multilabel flat': (
    _both(_toml('multiclass', 'multilabel'), _rows()),
    "'mood' has 1 axes; expected [N, C] of 0 and 1",
  ),
  'multilabel width': (
    _both(_toml('multiclass', 'multilabel'), _toml('id =', 'classes = ["a", "b"]\nid ='), _rows(mood=np.zeros((N, 3)))),
    "'mood', row 0 has 3 labels; expected 2, each 0 or 1",
  ),
  'unknown tag': (
    _both(
      _toml('multiclass', 'multilabel'),
      _toml('id =', 'classes = ["calm", "glad"]\nid ='),
      _parquet(mood=[['calm'], ['gald']] * 6 + [[]]),
    ),
    "'mood' is 'gald' in row 1; expected names of classes; did you mean glad?",
  ),
  # Ids, groups, splits.
  'id twice': (_rows(who=_set(4, 's3')), "id 's3' names two samples, DATA/data.npz row 3 and DATA/data.npz row 4"),
  'id in two files': (_more(who=_set(4, 's3')), 'names two samples, DATA/data.npz row 3 and DATA/more.npz row 4'),
  'id of fractions': (
    _toml('id = "who"', 'id = "pulse"'),
    "array 'pulse' holds numbers with a fraction; expected one text",
  ),
  'empty id': (_rows(who=_set(4, '')), "array 'who' is empty in row 4"),
  'unknown word for a split': (
    _rows(part=_set(4, 'holdout')),
    "'part' is 'holdout' in row 4; expected train, validation",
  ),
  'a split of one': (
    _rows(part=['train'] * 9 + ['test'] * 3 + ['val']),
    'split validation gets 1 of 13 samples; expected',
  ),
  'a split of none': (_rows(part=['train'] * 9 + ['test'] * 4), 'split validation gets 0 of 13 samples; expected'),
  'a split of none by fractions': (
    _both(_toml('"part"', '{ train = 0.98, validation = 0.01, test = 0.01 }'), _rows()),
    'split validation gets 0 of 13 samples; expected at least 2: give more samples, or change splits',
  ),
  'a group in two splits': (
    _both(_GROUP, _rows(speaker=[0, 1, 2, 3] * 3 + [2])),
    "array 'speaker': row 12 puts group '2' into split train, other rows into validation; expected one split a group",
  ),
  'a group in two files': (
    _both(
      _GROUP,
      _toml('"part"', '{ train = "data.npz", validation = 0.2, test = "more.npz" }'),
      _rows(speaker=np.arange(N)),
      lambda f: write_npz(f / 'more.npz', {**make_rows(seed=1, prefix='t'), 'speaker': [99] * 5 + [3] * (N - 5)}),
    ),
    "more.npz: array 'speaker': row 5 puts group '3' into split test, other rows into",
  ),
  # Files.
  'no npz': (lambda f: (f / 'data.npz').write_bytes(b'no zip' * 100), 'cannot be read as an .npz file'),
  'empty npz': (lambda f: (f / 'data.npz').write_bytes(b''), 'cannot be read as an .npz file'),
  'half an npz': (_truncate('data.npz', 0.5), 'cannot be read as an .npz file'),
  'damaged npz': (_damage, 'data.npz cannot be read as an .npz file'),
  'short array': (_rewrite_member(lambda b: b[:-8]), 'an array is shorter than its header says'),
  'long array': (_rewrite_member(lambda b: b + b'0'), 'an array is longer than its header says'),
  'no npy': (_rewrite_member(lambda b: b'no array'), 'cannot be read as an .npz file'),
  'half a parquet': (_truncate('data.parquet', 0.5), 'data.parquet cannot be read as a Parquet file'),
  'no parquet': (
    _both(_unlink, lambda f: (f / 'data.parquet').write_bytes(b'PAR1' * 30)),
    'data.parquet cannot be read as a Parquet file',
  ),
  # Parquet.
  'no column': (_both(_toml('pose = ', 'posture = '), _parquet()), "data.parquet has no column 'posture'; found eeg"),
  'widths of a vector': (_parquet(pose=_set(3, [1.0, 2.0])), 'row 3 has shape (2,); expected (4,), as in other rows'),
  'widths of frames': (
    _parquet(eeg=_set(3, [[1.0, 2.0]])),
    "column 'eeg' holds lists of 2 and of 3 values; expected one",
  ),
  'null label': (_parquet(mood=_set(3, None)), "column 'mood' is null in row 3; expected a target in every row"),
  'null id': (_parquet(who=_set(3, None)), "column 'who' is empty in row 3"),
  'null everywhere': (_parquet(pose=[None] * N), "column 'pose' holds nothing in any row; expected a vector"),
  'text column': (_parquet(pose=['a'] * N), "column 'pose' holds text; expected numbers"),
  'nested too deep': (_parquet(pose=[[[1.0]]] * N), "column 'pose' has rows of lists nested 2 deep; expected [N, D]"),
  'negative id in a list': (_parquet(words=_set(3, [2, -1])), "column 'words', row 3: token id -1; expected 0 to 49"),
  'multilabel of text': (
    _both(_toml('multiclass', 'multilabel'), _parquet(mood=['a'] * N)),
    'expected a list of names or of 0 and 1 a sample',
  ),
}


@pytest.mark.parametrize('name', ERRORS)
def test_mistakes_are_told_on_one_line(name, tmp_path):
  change, expected = ERRORS[name]
  folder = make_folder(tmp_path / 'data')
  change(folder)
  message = message_of(folder, tmp_path)
  assert str(tmp_path) in message  # The place is named.
  assert expected in message.replace(str(folder), 'DATA')
  assert not list((tmp_path / 'tfds').glob('folder/*/1.0.0'))


def test_what_is_mended_is_read(tmp_path):
  folder = make_folder(tmp_path / 'data')
  _rows(words=_set_token(-1))(folder)
  message_of(folder, tmp_path)
  _rows()(folder)
  assert sum(map(len, load(folder, tmp_path).splits.values())) == N


@pytest.mark.parametrize(
  ('arguments', 'expected'),
  [
    ({}, 'data set folder needs a folder with dataset.toml in it; name it with --config.data.dir=DIR'),
    ({'folder': 'absent'}, 'absent does not exist; expected a folder with dataset.toml'),
    ({'folder': __file__}, 'test_folder.py is a file; expected a folder'),
    ({'folder': '.', 'options': {'seed': 1}}, 'data set folder takes no options; found seed'),
  ],
)
def test_no_folder(arguments, expected, tmp_path):
  with pytest.raises(UserError) as caught:
    load_dataset('folder', tfds_dir=str(tmp_path), **arguments)
  assert expected in str(caught.value)


def test_folder_has_no_configs(tmp_path):
  with pytest.raises(UserError, match='unknown data set folder/big; expected folder'):
    load_dataset('folder/big', folder=str(make_folder(tmp_path / 'data')), tfds_dir=str(tmp_path))


def test_parquet_without_pyarrow(tmp_path, monkeypatch):
  imports = builtins.__import__

  def no_pyarrow(name, *args, **kwargs):
    if name.split('.')[0] == 'pyarrow':
      raise ImportError(name)
    return imports(name, *args, **kwargs)

  folder = make_folder(tmp_path / 'data', writer='parquet')
  monkeypatch.setattr(builtins, '__import__', no_pyarrow)
  with pytest.raises(UserError, match='needs the package pyarrow, which is not installed; run: pip install pyarrow'):
    survey_folder(read_description(str(folder)))


def test_the_example_of_the_config_works(root, tmp_path):
  path = pathlib.Path(root) / 'configs' / 'npz.py'
  assert load_config(str(path)).data.name == 'folder'
  lines = path.read_text().split('for instance:\n')[1].split('Further keys')[0]
  rng = np.random.default_rng(0)
  folder = tmp_path / 'data'
  folder.mkdir()
  (folder / 'dataset.toml').write_text(lines)
  np.savez(
    folder / 'a.npz',
    tags=rng.integers(0, 2, (60, 3)),
    speaker=np.arange(60) // 2,
    eeg=rng.normal(size=(60, 5, 2)),
    eeg_length=rng.integers(1, 6, 60),
    pose=rng.normal(size=(60, 3)),
    words=rng.integers(1, 9, (60, 4)),
    words_length=np.full(60, 4),
    face=np.ones((60, 3, 3)),
  )
  splits, labels, found = index_of(folder)
  assert found.spec.names == ('eeg', 'pose', 'words', 'face')
  assert (found.spec.task, found.spec.class_names) == ('multilabel', ('calm', 'tired', 'glad'))
  assert set(splits.values()) == set(SPLITS)
  assert len(labels) == 60
