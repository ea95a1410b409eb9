"""Every mistake in a user's own folder is told on one line, and what is mended is read."""

import builtins
import io
import zipfile

import numpy as np
import pytest
from small_folder import TOML, N, empty_arrays, load, make_folder, make_rows, message_of, pad, write_npz, write_parquet

from dream_jax.data.builders.folder.description import read_description
from dream_jax.data.builders.folder.survey import survey_folder
from dream_jax.data.datasets import load_dataset
from dream_jax.errors import UserError


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
  'modality called label': (_toml('pose = ', 'label = '), 'a modality is called "label"; expected letters'),
  'modality with a space': (_toml('pose = ', '"my pose" = '), 'a modality is called "my pose"; expected letters'),
  'length as a modality': (_toml('face = ', 'eeg_length = "vector"\nface = '), 'called like the lengths of eeg'),
  'lengths under another name': (
    _toml('face = ', 'size = { kind = "vector", array = "eeg_lengths" }\nface = '),
    'modality size is called like the lengths of eeg (eeg_lengths)',
  ),
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
  'no rows': (lambda f: np.savez(f / 'data.npz', **empty_arrays()), 'holds no sample; expected rows in DATA/data.npz'),
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
  'short array': (_rewrite_member(lambda b: b[:-8]), 'bytes, its header says'),
  'long array': (_rewrite_member(lambda b: b + b'0'), 'bytes, its header says'),
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
    ({'folder': __file__}, 'test_folder_mistakes.py is a file; expected a folder'),
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
