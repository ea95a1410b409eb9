"""What was sealed comes back as it was, or not at all; the message says which file, what is wrong and what to do."""

import json
import os

import numpy as np
import pytest

from dream_jax.errors import UserError
from dream_jax.workdir import sealed
from dream_jax.workdir.config_guard import claim, read_config, read_sealed, run_identity
from dream_jax.workdir.metrics_log import MetricsWriter, read_metrics

_CONTENT = {'a': [1, 2.5, -0.0, 1e-300, True, None], 'b': {'ü': 'ß', '1': 0}}


def _read(path, **rest):
  return sealed.read(path, remedy='do this', **rest)


def _attempt(path):
  """(content, None) or (None, message)."""
  try:
    return _read(path, run='r').content, None
  except UserError as error:
    return None, str(error)


def test_what_was_written_comes_back_with_its_run(tmp_path):
  path = tmp_path / 'deep' / 'x.json'
  sealed.write(path, _CONTENT, run='r')
  assert _read(path) == (_CONTENT, 'r')
  assert _read(path, run='r').content == _CONTENT
  before = path.read_bytes()
  sealed.write(path, dict(reversed(_CONTENT.items())), run='r')
  assert _read(path).content == _CONTENT
  sealed.write(path, _CONTENT, run='r')
  assert path.read_bytes() == before
  # Another layout of the same content is no damage.
  path.write_text(json.dumps(json.loads(path.read_text())))
  assert _read(path).content == _CONTENT


def test_arrays_and_what_is_not_finite_become_json(tmp_path):
  path = tmp_path / 'x.json'
  sealed.write(path, {'a': np.arange(3), 'b': (np.float32(0.5), float('nan'), -np.inf), 'c': np.bool_(True), 1: None})
  assert _read(path).content == {'a': [0, 1, 2], 'b': [0.5, None, None], 'c': True, '1': None}


def test_a_write_that_fails_leaves_the_old_file_and_no_other(tmp_path, monkeypatch):
  path = tmp_path / 'x.json'
  sealed.write(path, {'old': 1})
  with pytest.raises(TypeError, match='cannot write object'):
    sealed.write(path, {'new': object()})

  def full(_):
    raise OSError(28, 'No space left on device')

  monkeypatch.setattr(os, 'fsync', full)
  with pytest.raises(OSError, match='No space'):
    sealed.write(path, {'new': 1})
  assert _read(path).content == {'old': 1}
  assert os.listdir(tmp_path) == ['x.json']


def test_every_changed_character_is_noticed_or_changes_nothing(tmp_path):
  path = tmp_path / 'x.json'
  sealed.write(path, _CONTENT, run='r')
  data, same = path.read_bytes(), 0
  for place in range(len(data)):
    path.write_bytes(data[:place] + bytes([data[place] ^ 1]) + data[place + 1 :])
    found, said = _attempt(path)
    if said is None:
      assert found == _CONTENT
      same += 1
    else:
      assert str(path) in said
      assert said.endswith('; do this')
      assert '\n' not in said
  assert same < 0.2 * len(data)  # Spaces, and digits of the last place.


@pytest.mark.parametrize(
  ('content', 'words'),
  [
    (b'', r'cannot be read \(JSONDecodeError'),
    (b'{"a": 1', r'cannot be read \(JSONDecodeError'),
    (b'\xff\xfe{', r'cannot be read \(Unicode'),
    (b'[1]', r'cannot be read \(ValueError: it holds list'),
    (b'[' * 100_000, r'cannot be read \(RecursionError'),
    (b'{"a": NaN, "seal": {"sha256": "0", "run": null, "name": "x.json"}}', 'cannot be read'),
    (b'{"a": 1}', 'has no seal: an earlier version of this program wrote it, or it is damaged'),
    (b'{"a": 1, "seal": 3}', 'is damaged'),
    (b'{"a": 1, "seal": {}}', 'is damaged'),
    (b'{"a": 1, "seal": {"run": "r"}}', 'cannot be read'),
    (b'{"a": 1, "seal": {"sha256": "00", "run": "r", "name": "x.json"}}', 'is damaged'),
  ],
)
def test_what_is_no_sealed_file_is_told(tmp_path, content, words):
  path = tmp_path / 'x.json'
  path.write_bytes(content)
  with pytest.raises(UserError, match=words):
    _read(path)


def test_another_run_and_another_place_are_told(tmp_path):
  sealed.write(tmp_path / 'x.json', _CONTENT, run='r')
  with pytest.raises(UserError, match=r'x\.json belongs to another run \(another config, .*; do this'):
    _read(tmp_path / 'x.json', run='s')
  (tmp_path / 'x.json').rename(tmp_path / 'y.json')
  with pytest.raises(UserError, match=r'y\.json was written as x\.json, expected y\.json; do this'):
    _read(tmp_path / 'y.json')
  (tmp_path / 'y.json').unlink()
  (tmp_path / 'y.json').mkdir()
  with pytest.raises(UserError, match=r'y\.json cannot be read \(IsADirectoryError'):
    _read(tmp_path / 'y.json')
  with pytest.raises(FileNotFoundError):
    _read(tmp_path / 'z.json')


def test_a_reader_between_two_writes_finds_one_of_the_pairs(tmp_path, monkeypatch):
  path, read = tmp_path / 'x.json', sealed.read
  sealed.write_with_arrays(path, {'n': 1}, {'x': np.zeros(3)})

  def write_meanwhile(*arguments, **rest):
    found = read(*arguments, **rest)
    monkeypatch.setattr(sealed, 'read', read)
    sealed.write_with_arrays(path, {'n': 2}, {'x': np.ones(3)})
    return found

  monkeypatch.setattr(sealed, 'read', write_meanwhile)
  content, arrays, _ = sealed.read_with_arrays(path, remedy='do this')
  assert content == {'n': 2}
  np.testing.assert_array_equal(arrays['x'], np.ones(3))
  assert len(list(tmp_path.glob('*.npz'))) == 1
  sealed.write(path, {'n': 3})
  with pytest.raises(UserError, match='names no arrays'):
    sealed.read_with_arrays(path, remedy='do this')


def test_lines_are_sealed_one_by_one_and_a_torn_one_is_left_out(tmp_path):
  lines = [sealed.line({'n': n, 'x': np.float32(n)}, run='r' * 64) for n in range(3)]
  found = sealed.records(b''.join(lines) + lines[0][:-1], 'log', remedy='do this', run='r' * 64)
  assert [record for _, record in found] == [{'n': n, 'x': float(n)} for n in range(3)]
  assert [line for line, _ in found] == lines
  for damage, words in (
    (lines[1].replace(b'1.0', b'1.5'), 'line 2 of log is damaged; do this'),
    (lines[1].replace(b'r', b's'), 'line 2 of log is damaged; do this'),
    (lines[1][:-5], 'line 2 of log is damaged; do this'),
    (b'\n', 'line 2 of log is damaged; do this'),
    (b'7\n', 'line 2 of log is damaged; do this'),
    (b'{"n": 1}\n', 'line 2 of log has no seal: an earlier version'),
    (sealed.line({'n': 1}, run='s' * 64), 'line 2 of log belongs to another run'),
    (sealed.line({'n': 1}), 'line 2 of log belongs to another run'),
  ):
    with pytest.raises(UserError, match=words):
      sealed.records(lines[0] + damage + lines[2], 'log', remedy='do this', run='r' * 64)


def test_a_log_that_lacks_what_its_checkpoint_saw_is_refused(tmp_path):
  with MetricsWriter(tmp_path, 'a', run='r', tensorboard=False) as writer:
    for step in (2, 4, 6):
      writer.write(step, {'loss': 1.0})
  path = tmp_path / 'metrics.jsonl'
  whole = path.read_bytes()
  for cut in (b'', whole[:-20], b''.join(whole.splitlines(keepends=True)[:2])):
    path.write_bytes(cut)
    with pytest.raises(UserError, match=r'metrics\.jsonl lacks lines of a: the last is of step .*, its checkpoint of'):
      MetricsWriter(tmp_path, 'a', run='r', resume_step=6, tensorboard=False)
    assert path.read_bytes() == cut
  path.write_bytes(whole + b'{"method": "a", "st')
  MetricsWriter(tmp_path, 'a', run='r', resume_step=4, tensorboard=False).close()
  assert [record['step'] for _, record in read_metrics(tmp_path)] == [2, 4]
  path.unlink()
  MetricsWriter(tmp_path, 'a', run='r', tensorboard=False).close()


def test_a_run_is_what_decides_its_results():
  config = {'seed': 0, 'train': {'epochs': 3, 'dir': 'x', 'sizes': (1, 2)}, 'rate': 1.0, 'options': {}}

  def identity(config=config, data='d'):
    return run_identity('train', config, data, ignore=('train.dir',))

  same = [
    dict(reversed(config.items())),
    {**config, 'rate': 1},
    {**config, 'train': {**config['train'], 'dir': None}},
    {**config, 'train': {**config['train'], 'sizes': [1.0, 2]}},
  ]
  assert {identity(c) for c in same} == {identity()}
  others = [
    {**config, 'seed': 1},
    {**config, 'rate': True},
    {**config, 'train': {**config['train'], 'epochs': 4}},
    {**config, 'options': {'a': 1}},
    {**config, 'new': None},
  ]
  assert len({identity(), identity(data='e'), *(identity(c) for c in others)}) == len(others) + 2


def test_a_config_of_an_earlier_version_or_of_other_data_is_told(tmp_path):
  def owned(value, data):
    claim(tmp_path, {'a': value}, mode='train', free=('b',), run=run_identity('train', {'a': value}, data, ignore=()))

  owned(1, 'd')
  assert read_config(tmp_path) == {'a': 1}
  assert read_sealed(tmp_path).run == run_identity('train', {'a': 1}, 'd', ignore=())
  owned(1.0, 'd')
  with pytest.raises(UserError, match=r'made with other data: .*choose another --workdir, or bring the old data back'):
    owned(1, 'e')
  (tmp_path / 'config.json').write_text('{"a": 1}')
  with pytest.raises(UserError, match=r'config\.json has no seal: an earlier version .*choose another --workdir'):
    owned(1, 'd')


@pytest.mark.parametrize('left', ['study.jsonl', 'spec.json', 'methods', 'checkpoints', 'metrics.jsonl'])
def test_a_workdir_whose_runs_lie_at_its_root_is_of_an_earlier_version(tmp_path, left):
  (tmp_path / left).touch()
  with pytest.raises(UserError, match=rf'earlier version, which kept {left} there; choose another --workdir'):
    claim(tmp_path, {}, mode='study', free=None, run='study d h')
  assert [path.name for path in tmp_path.iterdir()] == [left]
