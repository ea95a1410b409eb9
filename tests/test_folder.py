"""The user's own folder: what is written comes back bit for bit, and splits hold still."""

import contextlib
import os
import pathlib
import tracemalloc

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from small_folder import (
  RAGGED,
  SHAPES,
  SPLITS,
  TOML,
  WRITERS,
  N,
  as_stored,
  empty_arrays,
  index_of,
  load,
  make_folder,
  make_rows,
  message_of,
  pad,
  write_npz,
  write_parquet,
)

from dream_jax.cli.flags import load_config
from dream_jax.data.builders.folder.formats import open_table
from dream_jax.data.builders.folder.index import position
from dream_jax.data.builders.folder.tables import Wanted
from dream_jax.data.catalogue import builder_class
from dream_jax.data.datasets import load_dataset
from dream_jax.errors import UserError


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
  np.savez(folder / 'nothing.npz', **empty_arrays())
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
  arrays['imu'][np.arange(5) >= arrays['imu_lengths'][:, None]] = 0
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
  assert name() == names[0]  # Another time says nothing.
  content = (folder / 'data.npz').read_bytes()
  with open(folder / 'data.npz', 'ab') as file:
    file.truncate(len(content) - 1)
    file.write(bytes([content[-1] ^ 1]))
  os.utime(folder / 'data.npz', ns=(1, 1))
  assert name() not in names[:-1]  # Other content of the same size and time,
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


def test_checksums_of_parquet_pages_are_compared(tmp_path):
  path = tmp_path / 'a.parquet'
  column = np.arange(1000.0)
  pq.write_table(
    pa.table({'x': column}),
    path,
    compression='none',
    use_dictionary=False,
    write_page_checksum=True,
    column_encoding='PLAIN',
  )
  content = bytearray(path.read_bytes())
  content[content.index(column.tobytes()) + 4003] ^= 1
  path.write_bytes(content)
  with pytest.raises(UserError, match=f'{path} cannot be read as a Parquet file .*checksum'):
    list(open_table(str(path)).values('x'))


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
