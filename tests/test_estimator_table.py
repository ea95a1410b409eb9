"""Tables of users as arrays of a model: kinds found or said, cells and slots that are missing, labels and splits."""

import json
import warnings

import numpy as np
import pytest

import dream_jax
from dream_jax.errors import InputError, UserError
from dream_jax.estimator import targets
from dream_jax.estimator.reader import fit_reader, restore_reader
from dream_jax.estimator.table import as_table

pd = pytest.importorskip('pandas', reason="the tests need pip install '.[test]'")

N = 12
_NOTES = ('mild pain in the chest', 'no pain at all', 'pain; worse at night', 'sleeps well')


def _columns():
  """One column of every kind, with gaps of every kind."""
  rng = np.random.default_rng(0)
  age = rng.normal(50, 10, N)
  age[1] = np.nan
  return {
    'lab_a': rng.normal(5, 2, N).tolist(),
    'lab_b': [None if i in (2, 3) else float(i) for i in range(N)],
    'age': age.tolist(),
    'ward': [None if i == 4 else 'north' if i % 2 else 'south' for i in range(N)],
    'note': [None if i == 5 else f'{_NOTES[i % 4]} {i}' for i in range(N)],
    'ecg': [None if i == 6 else rng.normal(size=3 + i % 4).tolist() for i in range(N)],
    'scan': [None if i == 7 else rng.integers(0, 256, (5, 6)).astype(np.uint8) for i in range(N)],
  }


_MODALITIES = {'labs': ['lab_*', 'age', 'ward'], 'note': 'note', 'ecg': 'ecg', 'scan': 'scan'}


def _read(table, modalities=None, *, rows=None, indicators=True):
  table = as_table(table)
  rows = np.arange(table.size) if rows is None else np.asarray(rows)
  reader, _ = fit_reader(modalities, table, rows, indicators=indicators)
  return reader


def _same(a, b):
  assert a.keys() == b.keys()
  for name in a:
    np.testing.assert_array_equal(a[name], b[name])


def _list_of_dicts(columns):
  """With absent keys where there is nothing."""
  return [{name: x[i] for name, x in columns.items() if x[i] is not None} for i in range(N)]


def _polars(columns):
  polars = pytest.importorskip('polars', reason="the tests need pip install '.[test]'")
  columns = {name: [v.tolist() if isinstance(v, np.ndarray) else v for v in x] for name, x in columns.items()}
  return polars.DataFrame(columns, strict=False)


@pytest.mark.parametrize('other', [dict, _list_of_dicts, _polars], ids=['dict', 'list of dicts', 'polars'])
def test_every_container_says_the_same(other):
  columns, said = _columns(), {**_MODALITIES, 'scan': dream_jax.image('scan')}
  frame = pd.DataFrame({name: pd.Series(x, dtype=object) for name, x in columns.items()})
  reader = _read(frame, said)
  expected = reader.inputs(as_table(frame))
  made = other(columns)
  _same(expected, reader.inputs(as_table(made)))
  _same(expected, _read(made, said).inputs(as_table(made)))


def test_kinds_are_found():
  reader = _read(_columns(), _MODALITIES)
  assert {name: (part.kind, part.shape) for name, part in reader.parts.items()} == {
    # Three numbers, two of which have gaps; two wards and what is neither.
    'labs': ('vector', (3 + 2 + 3,)),
    'note': ('tokens', (6,)),
    'ecg': ('sequence', (6, 1)),
    'scan': ('image', (5, 6, 1)),
  }
  assert reader.parts['labs'].features[3:] == [
    'lab_b missing', 'age missing', 'ward=north', 'ward=south', 'ward=unknown or missing',
  ]  # fmt: skip


def test_other_contents_and_their_kinds():
  rng = np.random.default_rng(0)
  table = {
    'bits': rng.normal(size=(N, 4)),
    'walk': [rng.normal(size=(2 + i % 3, 2)) for i in range(N)],
    'photo': rng.integers(0, 256, (N, 4, 4, 3)).astype(np.uint8),
    'flag': [True, False] * (N // 2),
  }
  reader = _read(table, {name: name for name in table})
  assert [(p.kind, p.shape) for p in reader.parts.values()] == [
    ('vector', (4,)), ('sequence', (4, 2)), ('image', (4, 4, 3)), ('vector', (2,)),
  ]  # fmt: skip


@pytest.mark.parametrize(
  ('column', 'said'),
  [
    (['New York', 'Los Angeles'] * 6, r"text\('c'\) or dream_jax\.vector\('c'\)"),
    ([f'id{i}' for i in range(N)], r"text\('c'\) or dream_jax\.vector\('c'\)"),
    (list(np.zeros((N, 5, 6)) + np.arange(N)[:, None, None]), r"sequence\('c'\) or dream_jax\.image\('c'\)"),
    ([np.ones((2 + i, 3 + i)) for i in range(N)], 'different shapes'),
    ([1.0, 'a'] * 6, r'numbers \(row 0\) and text \(row 1\)'),
    (np.arange(N).astype('datetime64[D]'), 'dates'),
    ([{1: 2}] * N, 'row 0 .* is a dict'),
    ([['a', 'b']] * N, "' '.join"),
    ([None] * N, 'holds nothing'),
  ],
)
def test_what_may_be_either_is_refused_in_a_line(column, said):
  with pytest.raises(InputError, match=said) as error:
    _read({'c': column}, {'m': 'c'})
  assert '\n' not in str(error.value)


def test_a_kind_that_is_said_is_taken():
  city = {'c': ['New York', 'Los Angeles'] * 6}
  assert _read(city, {'m': dream_jax.text('c')}).parts['m'].kind == 'tokens'
  assert _read(city, {'m': {'kind': 'vector', 'columns': 'c'}}).parts['m'].kind == 'vector'
  scans = {'c': list(np.arange(N * 6.0).reshape(N, 2, 3))}
  assert _read(scans, {'m': dream_jax.image('c')}).parts['m'].shape == (2, 3, 1)
  assert _read(scans, {'m': dream_jax.sequence('c', max_length=1)}).parts['m'].shape == (1, 3)


@pytest.mark.parametrize(
  ('modalities', 'said'),
  [
    ({'labs': 'lab_c'}, "'lab_c' is no column; did you mean lab_"),
    ({'labs': 'x*'}, "'x\\*' matches no column"),
    ({'labs': ['lab_*'], 'more': ['lab_a', 'age']}, "'lab_a' is in the modalities 'labs' and 'more'"),
    ({'labs': ['lab_a', 'ecg']}, "'ecg' holds lists or arrays"),
    ({'labs': {'columns': ['age'], 'kid': 'vector'}}, "entry 'kid'; did you mean kind"),
    ({'note': dream_jax.vector('note')}, 'different words|may be|holds'),
    ({'note': dream_jax.image('note')}, 'said to be image, and column .* holds text'),
    ({'labs': 3.5}, 'expected a column'),
    ([], 'expected a dict'),
  ],
)
def test_modalities_that_are_wrong_are_named(modalities, said):
  columns = _columns()
  columns['note'] = [f'word{i}' for i in range(N)]
  if modalities == {'note': dream_jax.vector('note')}:
    columns = {name: x * 20 for name, x in columns.items()}
    columns['note'] = [f'word{i}' for i in range(20 * N)]
  with pytest.raises(InputError, match=said):
    _read(columns, modalities)


def test_a_missing_cell_is_the_median_and_says_so_and_a_missing_slot_is_zeros():
  x = np.array([[1.0, 10], [2, np.nan], [3, 30], [9, 50], [np.nan, np.nan]])
  reader = _read({'a': x[:, 0], 'b': x[:, 1]}, {'m': ['a', 'b']})
  part = reader.parts['m']
  assert (part.medians, part.features) == ([2.5, 30.0], ['a', 'b', 'b missing'])
  made = reader.inputs(as_table({'a': x[:, 0], 'b': x[:, 1]}))['m']
  # The medians and means are those of the four slots that hold something.
  np.testing.assert_allclose(made[1, 1], (30 - np.mean([10, 30, 30, 50])) / np.std([10, 30, 30, 50]), rtol=1e-6)
  np.testing.assert_allclose(made[:, 2], [-0.25, 0.75, -0.25, -0.25, 0])
  np.testing.assert_array_equal(made[4], 0)
  assert (made[:4] != 0).any(1).all()
  plain = _read({'a': x[:, 0], 'b': x[:, 1]}, {'m': ['a', 'b']}, indicators=False)
  assert plain.parts['m'].features == ['a', 'b']


def test_a_cell_that_was_never_missing_is_the_median_with_one_warning():
  table = {'a': [1.0, 2, 4], 'b': [1.0, 3, 5]}
  reader = _read(table, {'m': ['a', 'b']})
  gap = as_table({'a': [2.0, np.nan], 'b': [3.0, 1.0]})
  with pytest.warns(UserWarning, match="'a'.*median") as said:
    made = reader.inputs(gap)['m']
  assert len(said) == 1
  np.testing.assert_array_equal(made[0, 0], made[1, 0])
  with warnings.catch_warnings():
    warnings.simplefilter('error')
    reader.inputs(gap)


def test_a_single_number_that_is_missing_differs_from_every_number():
  reader = _read({'a': [1.0, 2.0, 3.0, np.nan]}, {'m': 'a'})
  made = reader.inputs(as_table({'a': [2.0, np.nan]}))['m']
  np.testing.assert_array_equal(made, [[0, 1], [0, 0]])


def test_unknown_words_and_missing_ones_share_a_column_that_training_has_seen():
  reader = _read({'a': ['u', 'v', 'u', None], 'b': [1.0, 2, 3, 4]}, {'m': ['a', 'b']})
  known, unknown, gone = reader.inputs(as_table({'a': ['u', 'w', None], 'b': [1.0] * 3}))['m'][:, 1:]
  np.testing.assert_allclose(known, [0.5, -0.25, -0.25])
  np.testing.assert_allclose(unknown, [-0.5, -0.25, 0.75])
  np.testing.assert_array_equal(unknown, gone)
  never = _read({'a': ['u', 'v', 'u', 'v'], 'b': [1.0, 2, 3, 4]}, {'m': ['a', 'b']})
  np.testing.assert_array_equal(never.inputs(as_table({'a': ['w'], 'b': [1.0]}))['m'][0, 1:], 0)


def test_nothing_is_fitted_on_validation_rows():
  columns = _columns()
  part = _read(columns, _MODALITIES, rows=range(8))
  changed = {name: [*x[:8], *x[8:][::-1]] for name, x in columns.items()}
  changed['note'][10], changed['age'][9] = 'other words and other words', 1e6
  changed['lab_a'][11] = -1e9
  other = _read(changed, _MODALITIES, rows=range(8))
  assert part.state() == other.state()
  assert 'other' not in part.parts['note'].words


def test_words_are_those_of_two_rows_and_others_are_unknown():
  reader = _read({'t': ["It's RED, isn't it?", 'red wine', 'Red 赤い it', 'blue']}, {'m': dream_jax.text('t')})
  part = reader.parts['m']
  assert part.words == ['red', 'it']
  ids = reader.inputs(as_table({'t': ['red blue it', '', None, '  ', 'blue']}))
  np.testing.assert_array_equal(ids['m'][:, :3], [[2, 1, 3], [0, 0, 0], [0, 0, 0], [0, 0, 0], [1, 0, 0]])
  np.testing.assert_array_equal(ids['m_length'], [3, 0, 0, 0, 1])


def test_sequences_are_padded_cut_and_filled():
  reader = _read({'s': [[1.0, 3.0], [2.0, 2.0, 2.0]]}, {'m': 's'})
  gap = as_table({'s': [[1.0, None], [], [np.nan], None, [3.0]]})
  made = reader.inputs(gap)
  np.testing.assert_array_equal(made['m_length'], [2, 0, 0, 0, 1])
  np.testing.assert_array_equal(made['m'][0, 1:], 0)  # A gap is the average.
  assert made['m'][0, 0, 0] == -made['m'][4, 0, 0] < 0
  with pytest.warns(UserWarning, match='cut'):
    assert reader.inputs(as_table({'s': [[1.0] * 5]}))['m_length'][0] == 3


@pytest.mark.parametrize(
  ('change', 'said'),
  [
    ({'age': ['x'] * N}, "'age' holds text; expected numbers"),
    ({'age': [np.inf] * N}, "row 0 of column 'age' is infinity"),
    ({'note': [1.0] * N}, "'note' holds numbers; expected text"),
    ({'ecg': ['x y'] * N}, "'ecg' holds text; expected arrays"),
    ({'scan': [np.ones((5, 5))] * N}, r'row 0 of column .scan. has shape \(5, 5\); expected \(5, 6, 1\)'),
    ({'age': [1e300] * N}, 'too large'),
  ],
)
def test_other_contents_than_in_training_are_refused(change, said):
  reader = _read(_columns(), _MODALITIES)
  with pytest.raises(InputError, match=said):
    reader.inputs(as_table({**_columns(), **change}))


def test_absent_modalities_are_missing_and_a_misspelt_column_is_refused():
  reader = _read(_columns(), _MODALITIES)
  made = reader.inputs(as_table({'note': ['no pain']}))
  for name in ('labs', 'ecg', 'scan'):
    assert not made[name].any()
  columns = _columns()
  columns['Age'] = columns.pop('age')
  with pytest.raises(InputError, match="no column 'age', and has 'Age'"):
    reader.inputs(as_table(columns))
  with pytest.raises(InputError, match='none of the columns'):
    reader.inputs(as_table({'weight': [1.0]}))


def test_columns_without_names_are_taken_by_place_and_unused_ones_are_not_read():
  table = {'a': [1.0, 2, 4], 'day': np.arange(3).astype('datetime64[D]'), 'b': [1.0, 3, 5]}
  reader = _read(pd.DataFrame(table), {'m': ['a', 'b']})
  expected = reader.inputs(as_table({'a': [2.0], 'b': [5.0]}))
  _same(reader.inputs(as_table(np.array([[2.0, 9.0, 5.0]]))), expected)
  with pytest.raises(InputError, match='X has 2 features; expected 3'):
    reader.inputs(as_table(np.ones((1, 2))))
  plain = _read(np.array([[1.0, 1], [2, 3], [4, 5]]))
  frame = as_table(pd.DataFrame({'p': [2.0], 'q': [5.0]}))
  np.testing.assert_array_equal(plain.inputs(frame)['x'], expected['m'])


def test_a_reader_survives_json():
  reader = _read(_columns(), _MODALITIES)
  again = restore_reader(json.loads(json.dumps(reader.state())))
  assert again.modalities == reader.modalities
  _same(reader.inputs(as_table(_columns())), again.inputs(as_table(_columns())))


@pytest.mark.parametrize(
  ('table', 'said'),
  [
    (np.ones(3), 'Reshape your data'),
    (np.ones((2, 2)) * 1j, 'Complex data not supported'),
    ({'a': [1, 2], 'b': [1]}, 'a 2, b 1'),
    ({'a': 3}, 'one sample is a list of one dict'),
    ({}, 'empty dict'),
    (pd.DataFrame([[1, 2]], columns=['a', 'a']), "two columns 'a'"),
    (pd.Series([1, 2], name='a'), r"frame\[\['a'\]\]"),
    ([[1, 2], [3]], 'different sizes'),
  ],
)
def test_no_tables_are_refused(table, said):
  with pytest.raises(InputError, match=said):
    as_table(table)


@pytest.mark.parametrize(
  'y', [['b', 'a', 'b', 'c'], [3, 1, 3, 7], [True, False, True, True], [2.0, 1.0, 2.0, 5.0]], ids=str
)
def test_classes_may_be_of_any_type(y):
  classes, codes = targets.classes_of(pd.Series(y), 4)
  assert classes[codes].tolist() == y
  assert sorted(set(y)) == classes.tolist()


@pytest.mark.parametrize(
  ('y', 'said'),
  [
    (['a', None, 'b'], 'missing .* in row 1'),
    ([1.0, 2.0, np.nan], 'missing .* in row 2'),
    ([1.5, 2.0, 3.0], 'Unknown label type: continuous'),
    (['a', 1, 'b'], 'several types'),
    (['a', 'a', 'a'], '1 class'),
    ([1, 2], '2 labels and X 3 samples'),
    (None, 'requires y to be passed'),
    ([[1, 2], [1, 2], [1, 2]], 'one label for each sample'),
  ],
)
def test_labels_that_are_none_are_refused(y, said):
  with pytest.raises(InputError, match=said):
    targets.classes_of(np.array(y, object) if y and 'a' in y else y, 3)


def test_amounts_and_classes_are_told_apart_or_refused():
  assert targets.is_classes(['a', 'b'], 2, 't')
  assert targets.is_classes([0, 1] * 20, 40, 't')
  assert not targets.is_classes([0.5, 1.0], 2, 't')
  with pytest.raises(InputError, match="task='classification' or task='regression'"):
    targets.is_classes(np.arange(100), 100, 't')
  with pytest.raises(InputError, match=r'missing .* in row 0'):
    targets.amounts_of([np.nan, 1.0], 2)


def test_validation_has_its_share_of_every_class_or_whole_groups():
  codes = np.repeat([0, 1, 2], [80, 16, 4])
  chosen = targets.validation_rows(codes, None, size=100, fraction=0.25, seed=0)
  assert np.bincount(codes[chosen]).tolist() == [20, 4, 1]
  np.testing.assert_array_equal(chosen, targets.validation_rows(codes, None, size=100, fraction=0.25, seed=0))
  assert (chosen != targets.validation_rows(codes, None, size=100, fraction=0.25, seed=1)).any()
  groups = targets.groups_of(np.arange(100) // 5, 100)
  assert groups is not None
  chosen = targets.validation_rows(np.arange(100) % 2, groups, size=100, fraction=0.25, seed=0)
  assert chosen.sum() == 25
  assert not set(groups[chosen]) & set(groups[~chosen])
  single = targets.validation_rows(np.array([0, 1, 1, 1]), None, size=4, fraction=0.4, seed=0)
  assert not single[0]
  assert single.any()
  with pytest.raises(InputError, match='1 sample'):
    targets.validation_rows(None, None, size=1, fraction=0.1, seed=0)


def test_input_errors_are_errors_of_the_user_and_of_values():
  assert issubclass(InputError, UserError)
  assert issubclass(InputError, ValueError)
