"""What columns may hold: every Arrow type is read for what it means or refused in one line, as are false headers."""

import datetime
import decimal
import io
import uuid
import zipfile

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from dream_jax.data.datasets import load_dataset
from dream_jax.errors import UserError

_N = 24
_RNG = np.random.default_rng(0)
_Y = [i % 2 for i in range(_N)]
_A = _RNG.normal(size=(_N, 3)).astype(np.float32)
_IMAGE = _RNG.normal(size=(_N, 2, 4, 3)).astype(np.float32)
_TOML = """task = "binary"
label = "y"
splits = { train = 0.5, validation = 0.25, test = 0.25 }
"""
_VECTORS = '[modalities]\na = "vector"\nb = "vector"\n'


def _write(folder, columns, toml=_TOML + _VECTORS, name='data.parquet'):
  folder.mkdir(exist_ok=True)
  base = {'y': _Y, 'a': pa.array(list(_A)), 'b': pa.array(list(_A[:, :2]))}
  path = folder / name
  path.parent.mkdir(exist_ok=True)
  pq.write_table(pa.table({**base, **columns}), path)
  (folder / 'dataset.toml').write_text(toml)
  return folder


def _load(folder, tmp_path):
  return load_dataset('folder', folder=str(folder), tfds_dir=str(tmp_path / 'tfds'))


def _whole(dataset, name):
  """Values of all samples in the order of the file."""
  ids = np.concatenate([s.ids for s in dataset.splits.values()])
  values = np.concatenate([s.label if name == 'label' else s.features[name] for s in dataset.splits.values()])
  return values[np.argsort([int(i.rpartition(':')[2]) for i in ids])]


_WORDS = ['no', 'yes']
_TEXTS = [_WORDS[y] for y in _Y]
_BYTES = [t.encode() for t in _TEXTS]
_NAMES = {
  'string_view': pa.array(_TEXTS, pa.string_view()),
  'large_string': pa.array(_TEXTS, pa.large_string()),
  'binary': pa.array(_BYTES, pa.binary()),
  'large_binary': pa.array(_BYTES, pa.large_binary()),
  'binary_view': pa.array(_BYTES, pa.binary_view()),
  'categorical': pa.array(_TEXTS).dictionary_encode(),
  'decimal': pa.array([decimal.Decimal(y) for y in _Y], pa.decimal128(5, 2)),
  'boolean': pa.array([bool(y) for y in _Y]),
  'float': pa.array([float(y) for y in _Y]),
}


@pytest.mark.parametrize('kind', _NAMES)
def test_labels_of_every_type(kind, tmp_path):
  folder = _write(tmp_path / 'data', {'y': _NAMES[kind]}, _TOML + 'classes = ["no", "yes"]\n' + _VECTORS)
  np.testing.assert_array_equal(_whole(_load(folder, tmp_path), 'label'), _Y)


_UUIDS = [uuid.UUID(int=i // 2) for i in range(_N)]
_GROUPS = {
  'uuid': pa.array([u.bytes for u in _UUIDS], pa.uuid()),
  'date': pa.array([datetime.date(2020, 1, 1 + i // 2) for i in range(_N)]),
  'timestamp': pa.array([datetime.datetime(2020, 1, 1 + i // 2) for i in range(_N)]),
  'string_view': pa.array([f'g{i // 2}' for i in range(_N)], pa.string_view()),
}


@pytest.mark.parametrize('kind', _GROUPS)
def test_groups_of_every_type_keep_their_samples_together(kind, tmp_path):
  splits = 'splits = { train = 0.5, validation = 0.25, test = 0.25 }\n'
  folder = _write(
    tmp_path / 'data', {'g': _GROUPS[kind]}, f'task = "binary"\nlabel = "y"\ngroup = "g"\n{splits}{_VECTORS}'
  )
  for split in _load(folder, tmp_path).splits.values():
    rows = sorted(int(i.rpartition(':')[2]) for i in split.ids)
    assert [r // 2 for r in rows[::2]] == [r // 2 for r in rows[1::2]]


_HALF = pa.array(list(_A.astype(np.float16)), pa.list_(pa.float16()))
_COLUMNS = {
  'tensor': pa.FixedShapeTensorArray.from_numpy_ndarray(_A),
  'fixed list': pa.FixedSizeListArray.from_arrays(pa.array(_A.ravel()), 3),
  'large list': pa.array(list(_A), pa.large_list(pa.float32())),
  'list of doubles': pa.array(list(_A.astype(np.float64)), pa.list_(pa.float64())),
}


@pytest.mark.parametrize('kind', _COLUMNS)
def test_vectors_of_every_type(kind, tmp_path):
  folder = _write(tmp_path / 'data', {'a': _COLUMNS[kind]})
  np.testing.assert_array_equal(_whole(_load(folder, tmp_path), 'a'), _A)


def test_tensors_are_images_whatever_the_order_of_their_axes(tmp_path):
  turned = np.moveaxis(_IMAGE, 3, 1)  # [N, C, H, W] in memory, seen as [N, H, W, C].
  kind = pa.fixed_shape_tensor(pa.float32(), (3, 2, 4), permutation=[1, 2, 0])
  storage = pa.FixedSizeListArray.from_arrays(pa.array(np.ascontiguousarray(turned).ravel()), 24)
  toml = _TOML + '[modalities]\na = "image"\nb = "image"\n'
  tensors = {
    'a': pa.FixedShapeTensorArray.from_numpy_ndarray(_IMAGE),
    'b': pa.ExtensionArray.from_storage(kind, storage),
  }
  dataset = _load(_write(tmp_path / 'data', tensors, toml), tmp_path)
  for name in 'ab':
    np.testing.assert_array_equal(_whole(dataset, name), _IMAGE)


def test_a_tensor_that_is_null_is_missing(tmp_path):
  whole = pa.FixedShapeTensorArray.from_numpy_ndarray(_A)
  there = [i % 3 != 0 for i in range(_N)]
  column = pa.ExtensionArray.from_storage(
    whole.type,
    pa.array([list(map(float, a)) if t else None for a, t in zip(_A, there, strict=True)], whole.type.storage_type),
  )
  found = _whole(_load(_write(tmp_path / 'data', {'a': column}), tmp_path), 'a')
  np.testing.assert_array_equal(found, np.where(np.array(there)[:, None], _A, 0))


def test_empty_lists_are_missing_at_every_depth(tmp_path):
  empty = [[], [[]], [[], []], None]
  image = [x.tolist() if i >= len(empty) else empty[i] for i, x in enumerate(_IMAGE)]
  vector = [[] if i in (1, 5) else x.tolist() for i, x in enumerate(_A)]
  toml = _TOML + '[modalities]\na = "vector"\nb = "image"\n'
  dataset = _load(_write(tmp_path / 'data', {'a': vector, 'b': pa.array(image)}, toml), tmp_path)
  a, b = _whole(dataset, 'a'), _whole(dataset, 'b')
  assert not b[:4].any()
  np.testing.assert_array_equal(b[4:], _IMAGE[4:])
  assert not a[[1, 5]].any()
  np.testing.assert_array_equal(np.delete(a, [1, 5], 0), np.delete(_A, [1, 5], 0))


def test_a_table_that_is_a_folder_is_read_part_by_part(tmp_path):
  folder = tmp_path / 'data'
  for part in range(2):
    _write(folder, {}, name=f'all.parquet/part-{part}.parquet')
  (folder / 'all.parquet' / '_SUCCESS').touch()
  (folder / 'all.parquet' / '.part-0.parquet.crc').touch()
  assert sum(len(s) for s in _load(folder, tmp_path).splits.values()) == 2 * _N
  (folder / 'all.parquet' / 'day=1').mkdir()
  with pytest.raises(UserError, match=r'all\.parquet is a folder with day=1 in it.*train = "all\.parquet/\*\.parquet"'):
    _load(folder, tmp_path)


def _npy(header: bytes) -> bytes:
  return b'\x93NUMPY\x01\x00' + len(header).to_bytes(2, 'little') + header


def _npz(folder, **members):
  """An .npz whose member `a` is these bytes."""
  folder.mkdir(exist_ok=True)
  with zipfile.ZipFile(folder / 'data.npz', 'w') as archive:
    for name, content in {'y': np.array(_Y), 'b': _A, **members}.items():
      if not isinstance(content, bytes):
        made = io.BytesIO()
        np.save(made, content)
        content = made.getvalue()
      archive.writestr(f'{name}.npy', content)
  (folder / 'dataset.toml').write_text(_TOML + _VECTORS)
  return folder


_HEADERS = {
  'no end of brackets': b"{'descr': '<f4', 'fortran_order': False, 'shape': " + b'(' * 300,
  'a string without end': b"{'descr': '<f4', 'fortran_order': False, 'shape': (24, 3), 'x': '''",
  'a negative size': b"{'descr': '<f4', 'fortran_order': False, 'shape': (24, -3), }",
  'a size that is no number': b"{'descr': '<f4', 'fortran_order': False, 'shape': (24, 3.5), }",
  'more than there is': b"{'descr': '<f4', 'fortran_order': False, 'shape': (24, 1000000000000), }",
  'more digits than a number has': b"{'descr': '<f4', 'fortran_order': False, 'shape': (24, " + b'9' * 5000 + b'), }',
  'a type of its own': b"{'descr': [('x', '<f4', (9, 9))], 'fortran_order': False, 'shape': (24,), }",
  'no dict': b'__import__("os").abort()',
  'columns of too many': b"{'descr': '<f4', 'fortran_order': True, 'shape': (24, 100000000000), }",
}


@pytest.mark.parametrize('header', _HEADERS)
def test_a_header_that_lies_is_one_line(header, tmp_path):
  with pytest.raises(UserError) as told:
    _load(_npz(tmp_path / 'data', a=_npy(_HEADERS[header])), tmp_path)
  assert 'data.npz' in str(told.value)
  assert '\n' not in str(told.value)


def test_names_that_stand_twice_are_refused(tmp_path):
  folder = _npz(tmp_path / 'data', a=_A)
  with zipfile.ZipFile(folder / 'data.npz', 'a') as archive, pytest.warns(UserWarning, match='Duplicate'):
    archive.writestr('a.npy', b'')
  with pytest.raises(UserError, match="array 'a' is there twice"):
    _load(folder, tmp_path)


_DESCRIPTIONS = {
  'digits without end': (
    'label = "y"',
    'label_range = [0, 0x' + 'f' * 5000 + ']\nlabel = "y"',
    'label_range is a list',
  ),
  'decimal digits without end': ('label = "y"', f'label = {"9" * 5000}', 'is not valid TOML'),
  'brackets without end': ('label = "y"', 'label = ' + '[' * 100_000, 'is not valid TOML'),
  'a name without end': ('task', f'name = "{"n" * 1000}"\ntask', 'at most 100 characters'),
  'an id beyond int32': ('a = "vector"', 'a = { kind = "tokens", unk_id = 1000000000000 }', 'from 1 to 2147483647'),
  'a vocabulary beyond memory': (
    'a = "vector"',
    'w = "tokens"',
    'token ids (number the words that occur from 2) needs',
  ),
  'a split twice': ('validation =', 'val = 0.1, valid =', 'splits names validation twice'),
}


@pytest.mark.parametrize('what', _DESCRIPTIONS)
def test_a_description_that_asks_for_too_much_is_one_line(what, tmp_path):
  old, new, expected = _DESCRIPTIONS[what]
  folder = _npz(tmp_path / 'data', a=_A, w=np.full((_N, 2), 2_000_000_000))
  toml = folder / 'dataset.toml'
  toml.write_text(toml.read_text().replace(old, new, 1))
  with pytest.raises(UserError) as told:
    _load(folder, tmp_path)
  assert expected in str(told.value)
  assert len(str(told.value)) < 1000


_LABELS = {
  'no UTF-8': ([b'caf\xe9', b'caf\xe8'], '', "row 0, is b'caf\\xe9', which is not UTF-8"),
  'empty': (['', 'calm'], '', "is '' in row 0; expected a target"),
  'only space': ([' ', 'calm'], '', "is ' ' in row 0; expected a target"),
  'what a table writes for nothing': (['nan', 'calm'], '', 'or name it in classes if it is one'),
  'space behind': (['calm', 'calm '], '', 'look alike and would be two classes'),
  'two forms of a letter': (['caf\u00e9', 'cafe\u0301'], '', 'look alike and would be two classes'),
  'an invisible sign': (['calm', 'calm\u200b'], '', 'look alike and would be two classes'),
  'numbers where classes are called by numbers': (
    [0, 1, 2],
    'classes = ["1", "2", "3"]\n',
    "class '1' stands at place 0 of classes, and the labels are numbers",
  ),
}


@pytest.mark.parametrize('what', _LABELS)
def test_labels_that_could_be_taken_for_others_are_refused(what, tmp_path):
  values, classes, expected = _LABELS[what]
  toml = _TOML.replace('binary', 'multiclass') + classes + _VECTORS
  folder = _write(tmp_path / 'data', {'y': [values[i % len(values)] for i in range(_N)]}, toml)
  with pytest.raises(UserError) as told:
    _load(folder, tmp_path)
  assert expected in str(told.value)


def test_a_class_may_be_called_nan_where_it_is_named(tmp_path):
  toml = _TOML.replace('binary', 'multiclass') + 'classes = ["NA", "calm"]\n' + _VECTORS
  folder = _write(tmp_path / 'data', {'y': [('NA', 'calm')[y] for y in _Y]}, toml)
  np.testing.assert_array_equal(_whole(_load(folder, tmp_path), 'label'), _Y)


def test_ids_that_are_no_text_are_refused(tmp_path):
  ids = [b'\xff\xfe'[i % 2 :] + str(i // 2).encode() for i in range(_N)]
  folder = _write(tmp_path / 'data', {'who': pa.array(ids, pa.binary())}, 'id = "who"\n' + _TOML + _VECTORS)
  with pytest.raises(UserError, match=r"column 'who', row 0, is .* which is not UTF-8"):
    _load(folder, tmp_path)


@pytest.mark.parametrize('form', ['npz', 'parquet'])
def test_moments_that_float32_cannot_tell_apart_are_refused(form, tmp_path):
  times = 1_700_000_000_000 + np.arange(_N)[:, None] * np.array([1000, 10**10, 0])
  if form == 'npz':
    folder = _npz(tmp_path / 'data', a=times)
  else:
    folder = _write(tmp_path / 'data', {'a': pa.array(times.tolist())})
  with pytest.raises(UserError, match=r"'a': feature 0 goes from 1700000000000 to .* steps of 131072"):
    _load(folder, tmp_path)


def test_large_numbers_that_stay_apart_are_read(tmp_path):
  times = 1_700_000_000_000 + np.arange(_N)[:, None] * np.array([10**10, 10**11, 0])
  found = _whole(_load(_npz(tmp_path / 'data', a=times), tmp_path), 'a')
  np.testing.assert_array_equal(found, times.astype(np.float32))


_ENDS = {
  'in front': (lambda x: x[:, ::-1], 'tokens', 'beyond its length of 2'),
  'in front of sequences': (lambda x: x[:, ::-1, None] * 1.5, 'sequence', 'beyond its length of 2'),
  'more than said': (lambda x: np.where(x, x, np.arange(5) + 2), 'tokens', 'beyond its length of 2'),
  'frames behind': (lambda x: np.where(x, x, np.arange(5) + 2)[:, :, None] * 1.5, 'sequence', 'beyond its length of 2'),
}


@pytest.mark.parametrize('what', _ENDS)
def test_content_beyond_the_length_is_refused(what, tmp_path):
  change, kind, expected = _ENDS[what]
  padded = np.tile([7, 8, 0, 0, 0], (_N, 1))
  folder = _npz(tmp_path / 'data', s=change(padded), s_length=np.full(_N, 2), a=_A)
  (folder / 'dataset.toml').write_text(_TOML + f'[modalities]\ns = "{kind}"\na = "vector"\n')
  with pytest.raises(UserError) as told:
    _load(folder, tmp_path)
  assert expected in str(told.value)
  assert 'move the content to the front' in str(told.value)


@pytest.mark.parametrize('pad', [0, 1, -100])
def test_tokens_may_be_padded_with_any_one_id_behind_a_length(pad, tmp_path):
  padded = np.tile([7, 8, pad, pad, pad], (_N, 1))
  folder = _npz(tmp_path / 'data', s=padded, s_length=np.full(_N, 2), a=_A)
  (folder / 'dataset.toml').write_text(_TOML + '[modalities]\ns = "tokens"\na = "vector"\n')
  np.testing.assert_array_equal(_whole(_load(folder, tmp_path), 's'), np.tile([7, 8, 0, 0, 0], (_N, 1)))


def _with_first_words(tmp_path, rows, lengths):
  """Of a vocabulary whose first word, <s>, has id 0 and whose padding has id 1."""
  folder = _npz(tmp_path / 'data', s=np.resize(rows, (_N, 5)), s_length=np.resize(lengths, _N), a=_A)
  (folder / 'dataset.toml').write_text(_TOML + '[modalities]\ns = "tokens"\na = "vector"\n')
  return folder


def test_tokens_of_a_vocabulary_that_begins_with_id_0_are_read_up_to_their_lengths(tmp_path):
  rows = [[0, 8, 1, 1, 1], [0, 8, 9, 7, 1], [0, 8, 9, 7, 6]]
  found = _whole(_load(_with_first_words(tmp_path, rows, [2, 4, 5]), tmp_path), 's')
  kept = [[0, 8, 0, 0, 0], [0, 8, 9, 7, 0], [0, 8, 9, 7, 6]]
  np.testing.assert_array_equal(found, np.resize(kept, (_N, 5)))


def test_one_id_behind_a_length_that_pads_nowhere_else_is_content(tmp_path):
  rows = [[0, 8, 1, 1, 1], [0, 8, 9, 7, 6]]
  with pytest.raises(
    UserError, match=r"'s'.*, row \d has content in token 4, beyond its length of 4; mend the lengths"
  ):
    _load(_with_first_words(tmp_path, rows, [2, 4]), tmp_path)
