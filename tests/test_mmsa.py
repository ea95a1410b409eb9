"""MMSA pickles: read back as written, refused when they would run something, and explained when they are wrong."""

import os
import pickle

import numpy as np
import pytest

from dream_jax.data.builders.safe_pickle import load_arrays
from dream_jax.data.datasets import load_dataset
from dream_jax.errors import UserError

ROWS = {'train': 5, 'valid': 3, 'test': 4}


def make_split(name, n, *, aligned=True):
  """A split as MMSA writes it: float64 audio and vision, BERT states in the padding too, -inf in audio."""
  rng = np.random.default_rng(n)
  steps = 50 if aligned else 500
  lengths = rng.integers(4, 40, n)
  audio = rng.standard_normal((n, steps, 74))
  vision = rng.standard_normal((n, steps, 35))
  audio_lengths, vision_lengths = (lengths, lengths) if aligned else (lengths * 3, lengths * 5)
  for i in range(n):
    audio[i, audio_lengths[i] :] = 0.0
    vision[i, vision_lengths[i] :] = 0.0
  audio[0, 1, 3] = -np.inf
  bert = np.zeros((n, 3, 50), np.int64)
  bert[:, 0] = rng.integers(1000, 30000, (n, 50))
  bert[:, 1] = np.arange(50) < lengths[:, None]
  split = {
    'raw_text': np.array([f'{name} text {i}' for i in range(n)], dtype=object),
    'audio': audio,
    'vision': vision,
    'id': [f'-a_{name}{i}$_${i}' for i in range(n)],
    'text': rng.standard_normal((n, 50, 768)).astype(np.float32),
    'text_bert': bert,
    'annotations': ['Neutral'] * n,
    'regression_labels': rng.uniform(-3, 3, n),
  }
  if not aligned:
    split |= {'audio_lengths': audio_lengths.tolist(), 'vision_lengths': vision_lengths.tolist()}
  return split


def write(folder, content, *, aligned=True, protocol=4):
  path = folder / ('aligned_50.pkl' if aligned else 'unaligned_50.pkl')
  path.parent.mkdir(parents=True, exist_ok=True)
  path.write_bytes(pickle.dumps(content, protocol=protocol))
  return path


def load(tmp_path, manual, config='aligned'):
  return load_dataset(f'cmu_mosei/{config}', tfds_dir=str(tmp_path / 'tfds'), manual_dir=str(manual))


def message_of(tmp_path, manual, config='aligned'):
  with pytest.raises(UserError) as caught:
    load(tmp_path, manual, config)
  assert '\n' not in str(caught.value)
  return str(caught.value)


@pytest.mark.parametrize('aligned', [True, False])
def test_round_trip(aligned, tmp_path, capsys):
  content = {name: make_split(name, n, aligned=aligned) for name, n in ROWS.items()}
  write(tmp_path / 'manual' / 'MOSEI' / 'Processed', content, aligned=aligned)
  dataset = load(tmp_path, tmp_path / 'manual', 'aligned' if aligned else 'unaligned')
  assert dataset.spec.names == ('text', 'audio', 'vision')
  assert dataset.spec.data_kind == 'real'
  assert dataset.non_finite == {'text': 0, 'audio': 3, 'vision': 0}
  out = capsys.readouterr().out
  assert '3 in audio' in out
  assert 'sha256 differs' in out
  for ours, theirs in {'train': 'train', 'validation': 'valid', 'test': 'test'}.items():
    split, source = dataset.splits[ours], content[theirs]
    assert list(split.ids) == sorted(source['id'])
    rows = [source['id'].index(i) for i in split.ids]
    text_lengths = source['text_bert'][rows, 1].sum(axis=1)
    np.testing.assert_array_equal(split.features['text_length'], text_lengths)
    for i, row in enumerate(rows):
      n = text_lengths[i]
      np.testing.assert_array_equal(split.features['text'][i, :n], source['text'][row, :n])
      assert not split.features['text'][i, n:].any()
      for name in ('audio', 'vision'):
        expected = source[name][row].astype(np.float32)
        expected[~np.isfinite(expected).all(axis=-1)] = 0.0
        np.testing.assert_array_equal(split.features[name][i], expected)
        length = n if aligned else source[f'{name}_lengths'][row]
        assert split.features[f'{name}_length'][i] == length
    np.testing.assert_array_equal(split.label, source['regression_labels'][rows].astype(np.float32))
    np.testing.assert_array_equal(split.extras['text_bert'], source['text_bert'][rows])
    assert list(split.extras['raw_text']) == [source['raw_text'][r] for r in rows]
    assert set(split.extras['label_text']) == {'Neutral'}
  check_again = load(tmp_path, tmp_path / 'absent', 'aligned' if aligned else 'unaligned')
  assert len(check_again.splits['train']) == 5  # Prepared files need no source.


@pytest.mark.parametrize('protocol', [2, 3, 4, 5])
def test_every_protocol_of_arrays_and_strings_is_read(protocol, tmp_path):
  content = {
    'f': np.arange(6.0).reshape(2, 3),
    'order': np.asfortranarray(np.arange(6, dtype=np.int64).reshape(2, 3)),
    'names': np.array(['a', 'b']),
    'objects': np.array(['x', 'yy'], dtype=object),
    'scalar': np.float64(2.5),
    'bytes': b'\x00\xff',
    'list': [1, 2.5, 'c', None, True, (1, {2})],
  }
  read = load_arrays(str(write(tmp_path, content, protocol=protocol)))
  assert read.keys() == content.keys()
  assert read['list'] == content['list']
  assert read['scalar'] == 2.5
  assert read['bytes'] == content['bytes']
  for key in ('f', 'order', 'names', 'objects'):
    np.testing.assert_array_equal(read[key], content[key])


class Payload:
  def __init__(self, function, *args):
    self.function, self.args = function, args

  def __reduce__(self):
    return self.function, self.args


def test_payloads_are_refused_by_name_and_not_run(tmp_path):
  trace = tmp_path / 'trace'
  for payload, name in (
    (Payload(os.system, f'touch {trace}'), 'posix.system'),
    (Payload(eval, f"open('{trace}', 'w')"), 'builtins.eval'),
    (Payload(getattr, 'text', 'upper'), 'builtins.getattr'),
  ):
    for content in (payload, {'train': {'id': [payload]}}, np.array([payload], dtype=object)):
      path = write(tmp_path, content)
      with pytest.raises(UserError, match=f'asks for {name}.*nothing of it was run'):
        load_arrays(str(path))
      assert not trace.exists()
  assert 'posix.system' in message_of(tmp_path, write(tmp_path / 'm', Payload(os.system, f'touch {trace}')).parent)
  assert not trace.exists()
  pickle.loads(pickle.dumps(Payload(os.system, f'touch {trace}')))
  assert trace.exists()  # The payload works where it is not refused.


def test_dotted_names_do_not_reach_further(tmp_path):
  # Protocol 4 looks up dotted names: numpy.ndarray.__class__ must not pass for numpy.ndarray.
  for module, name in (('numpy', 'ndarray.__class__'), ('builtins', 'str.join'), ('os', 'system')):
    program = b'\x80\x04' + b''.join(b'\x8c' + bytes([len(s)]) + s.encode() for s in (module, name)) + b'\x93.'
    path = tmp_path / 'file.pkl'
    path.write_bytes(program)
    with pytest.raises(UserError, match='asks for'):
      load_arrays(str(path))


def test_object_arrays_and_foreign_codecs_are_refused(tmp_path):
  with pytest.raises(UserError, match='array of Python objects'):
    load_arrays(str(write(tmp_path, {'train': [np.array([1, 'a'], dtype=object)]})))
  program = b'\x80\x02c_codecs\nencode\nX\x01\x00\x00\x00aX\x05\x00\x00\x00rot13\x86R.'
  (tmp_path / 'codec.pkl').write_bytes(program)
  with pytest.raises(UserError, match="encoding 'rot13'"):
    load_arrays(str(tmp_path / 'codec.pkl'))


@pytest.mark.parametrize('share', [0.0, 0.2, 0.9, 0.9999])
def test_truncated_files(share, tmp_path):
  path = write(tmp_path / 'manual', {name: make_split(name, n) for name, n in ROWS.items()})
  data = path.read_bytes()
  path.write_bytes(data[: int(len(data) * share)])
  assert f'{path} cannot be read as a pickle' in message_of(tmp_path, tmp_path / 'manual')
  assert not list((tmp_path / 'tfds').glob('cmu_mosei/aligned/*'))


def _without(key):
  return lambda content: content['test'].pop(key)


def _set(key, value):
  return lambda content: content['train'].__setitem__(key, value)


@pytest.mark.parametrize(
  ('change', 'expected'),
  [
    (lambda content: content.pop('valid'), "has no split 'valid'; found train, test"),
    (_without('audio'), "split 'test' lacks audio"),
    (_without('regression_labels'), "split 'test' lacks regression_labels"),
    (_set('audio', np.zeros((5, 50, 5))), 'audio has shape (5, 50, 5); expected (5, 50, 74)'),
    (_set('vision', np.zeros((4, 50, 35))), 'vision has shape (4, 50, 35); expected (5, 50, 35)'),
    (_set('vision', [[1.0], [1.0, 2.0]]), 'vision is a list of unequal parts'),
    (_set('text', np.full((5, 50, 768), 'a')), 'text holds <U1; expected numbers'),
    (_set('text_bert', np.zeros((5, 50, 3))), 'text_bert has shape (5, 50, 3); expected (5, 3, 50)'),
    (_set('regression_labels', np.array([0, 1, 2, 3, 9.0])), 'lie in [0.0, 9.0]; expected [-3.0, 3.0]'),
    (_set('regression_labels', np.array([0, 1, 2, 3, np.nan])), 'expected [-3.0, 3.0]'),
    (_set('id', ['a$_$1'] * 5), "has id 'a$_$1' more than once"),
    (_set('id', ['a_1'] * 5), "has id 'a_1'; expected VIDEO$_$CLIP"),
    (_set('id', []), 'is empty'),
  ],
)
def test_wrong_contents(change, expected, tmp_path):
  content = {name: make_split(name, n) for name, n in ROWS.items()}
  change(content)
  path = write(tmp_path / 'manual', content)
  message = message_of(tmp_path, tmp_path / 'manual')
  assert expected in message
  assert str(path) in message


def test_content_that_is_no_dict(tmp_path):
  write(tmp_path / 'manual', [1, 2])
  assert 'holds a list; expected a dict' in message_of(tmp_path, tmp_path / 'manual')


def test_unaligned_files_need_lengths(tmp_path):
  content = {name: make_split(name, n, aligned=False) for name, n in ROWS.items()}
  del content['train']['audio_lengths']
  write(tmp_path / 'manual', content, aligned=False)
  assert 'lacks audio_lengths, which unaligned files have' in message_of(tmp_path, tmp_path / 'manual', 'unaligned')


def test_without_bert_the_last_frame_tells_the_length(tmp_path):
  content = {name: make_split(name, n) for name, n in ROWS.items()}
  lengths = {}
  for name, split in content.items():
    lengths[name] = split.pop('text_bert')[:, 1].sum(axis=1)
    for i, n in enumerate(lengths[name]):
      split['text'][i, n:] = 0.0
  write(tmp_path / 'manual', content)
  dataset = load(tmp_path, tmp_path / 'manual')
  for modality in ('text', 'audio', 'vision'):
    np.testing.assert_array_equal(dataset.splits['train'].features[f'{modality}_length'], lengths['train'])


def test_front_padded_frames_are_kept(tmp_path):
  content = {name: make_split(name, n) for name, n in ROWS.items()}
  content['train']['vision'][:] = 0.0
  content['train']['vision'][:, -3:] = 1.0
  write(tmp_path / 'manual', content)
  features = load(tmp_path, tmp_path / 'manual').splits['train'].features
  assert (features['vision'][:, -3:] == 1.0).all()
  assert (features['vision_length'] == 50).all()


@pytest.mark.parametrize('config', ['aligned', 'unaligned'])
def test_absent_files_are_explained_on_one_line(config, tmp_path, monkeypatch):
  file = f'{config}_50.pkl'
  message = message_of(tmp_path, tmp_path / 'manual', config)
  for part in (file, str(tmp_path / 'manual'), 'text [N, 50, 768]', 'MMSA', 'sha256', '--config.data.manual_dir=DIR'):
    assert part in message
  with pytest.raises(UserError) as caught:
    load_dataset(f'cmu_mosei/{config}', tfds_dir=str(tmp_path / 'tfds'))
  assert str(tmp_path / 'tfds' / 'downloads' / 'manual') in str(caught.value)
  assert '--config.data.manual_dir=DIR' in str(caught.value)
  assert '\n' not in str(caught.value)
