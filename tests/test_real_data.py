"""Loaders of small real data sets, on the real files where they are and on damaged ones everywhere."""

import io
import zipfile

import numpy as np
import pytest

from dream_jax.data.builders import npz_source
from dream_jax.data.builders.mosi_utterance.mosi_utterance import label_of
from dream_jax.data.datasets import load_dataset
from dream_jax.errors import UserError

UTTERANCES = {'clean': (466, 77, 209), 'bclstm': (1159, 288, 752), 'official': (1284, 229, 686)}


def load(name, tmp_path, manual, **options):
  return load_dataset(name, tfds_dir=str(tmp_path), manual_dir=str(manual), options=options)


def source(path, name):
  with np.load(path / name, allow_pickle=False) as archive:
    return {key: archive[key] for key in archive.files}


@pytest.mark.parametrize('config', UTTERANCES)
def test_mosi_utterances(config, tmp_path, shared_data):
  dataset = load(f'mosi_utterance/{config}', tmp_path, shared_data)
  raw = source(shared_data / 'mosi', 'mosi_utterance.npz')
  row = {key: i for i, key in enumerate(raw['utt_id'])}
  assert tuple(len(s) for s in dataset.splits.values()) == UTTERANCES[config]
  assert dataset.spec.names == (('text', 'audio') if config == 'official' else ('text', 'audio', 'vision'))
  assert (dataset.spec.task, dataset.spec.data_kind) == ('binary', 'real')
  videos = []
  for name, split in dataset.splits.items():
    rows = [row[i] for i in split.ids]
    np.testing.assert_array_equal(split.features['text'], raw['text_minilm'][rows])
    np.testing.assert_array_equal(split.features['audio'], raw['audio_opensmile'][rows])
    if config != 'official':
      np.testing.assert_array_equal(split.features['vision'], raw['vision_c3d_supervised'][rows])
    np.testing.assert_array_equal(split.label, raw['label'][rows] >= 0)
    np.testing.assert_array_equal(split.extras['sentiment'], raw['label'][rows])
    offsets, blob = raw['transcript_offsets'], raw['transcript_utf8'].tobytes()
    assert list(split.extras['raw_text'][:5]) == [blob[offsets[i] : offsets[i + 1]].decode() for i in rows[:5]]
    codes = raw[{'official': 'split'}.get(config, f'split_{config}')][rows]
    assert set(codes) == ({0} if config == 'bclstm' and name == 'validation' else {list(dataset.splits).index(name)})
    videos.append(set(split.extras['video']))
  assert not videos[0] & videos[1]
  assert not videos[0] & videos[2]
  assert not videos[1] & videos[2]


def test_mosi_tasks_and_texts(tmp_path, shared_data):
  regression = load('mosi_utterance/clean', tmp_path, shared_data, task='regression', text='words')
  assert regression.spec.label_range == (-3.0, 3.0)
  text, train = regression.spec.modalities[0], regression.splits['train']
  assert (text.kind, text.shape, text.unk_id, text.vocab_size) == ('tokens', (50,), 3108, 3109)
  assert train.features['text'].max() < 3108  # No word is the unknown one.
  assert train.features['text_length'].min() >= 1
  np.testing.assert_array_equal(train.label, train.extras['sentiment'])
  seven = load('mosi_utterance/bclstm', tmp_path, shared_data, task='multiclass', text='cnn')
  assert seven.spec.num_outputs == 7
  assert seven.spec.modalities[0].shape == (100,)
  assert set(seven.splits['train'].label) == set(range(7))


def test_mosi_aligned_to_words(tmp_path, shared_data):
  dataset = load('mosi_words', tmp_path, shared_data)
  raw = source(shared_data / 'mosi', 'mosi_valid_aligned.npz')
  row = {key: i for i, key in enumerate(raw['utt_id'])}
  assert sum(len(s) for s in dataset.splits.values()) == 229
  for split in dataset.splits.values():
    rows = [row[i] for i in split.ids]
    np.testing.assert_array_equal(split.features['audio'], raw['audio_covarep'][rows])
    np.testing.assert_array_equal(split.features['vision'], raw['vision_facet'][rows])
    np.testing.assert_array_equal(split.features['text'], raw['text_word_ids'][rows])
    np.testing.assert_array_equal(split.label, raw['label'][rows])
    for name in dataset.spec.names:
      np.testing.assert_array_equal(split.features[f'{name}_length'], raw['length'][rows])


@pytest.mark.parametrize(('config', 'sizes'), [('official', (2400, 300, 300)), ('speaker', (2000, 500, 500))])
def test_audio_visual_digits(config, sizes, tmp_path, shared_data):
  dataset = load(f'av_digits/{config}', tmp_path, shared_data, weak_image=config == 'speaker')
  raw = source(shared_data / 'av_digits', 'av_digits.npz')
  names = zip(raw['label'], raw['speaker'], raw['recording'], strict=True)
  row = {f'{label}_{speaker}_{recording}': i for i, (label, speaker, recording) in enumerate(names)}
  assert tuple(len(s) for s in dataset.splits.values()) == sizes
  images = raw['image_weak' if config == 'speaker' else 'image']
  for split in dataset.splits.values():
    rows = [row[i] for i in split.ids]
    np.testing.assert_array_equal(split.features['image'][..., 0], images[rows])
    np.testing.assert_array_equal(split.features['audio'], raw['audio_logmel'][rows])
    np.testing.assert_array_equal(split.label, raw['label'][rows])
  if config == 'speaker':
    assert [sorted(set(s.extras['speaker'])) for s in dataset.splits.values()][1:] == [['lucas'], ['theo']]


def test_sentiments_become_labels_as_the_field_counts_them():
  sentiment = np.array([-3.0, -2.6, -0.5, -0.2, 0.0, 0.5, 1.5, 2.4, 3.0], np.float32)
  assert label_of(sentiment, 'binary').tolist() == [0, 0, 0, 0, 1, 1, 1, 1, 1]
  assert label_of(sentiment, 'multiclass').tolist() == [0, 0, 3, 3, 3, 3, 5, 5, 6]  # Halves to even, as np.round.
  assert label_of(sentiment, 'regression').tolist() == sentiment.tolist()


@pytest.mark.parametrize(
  ('name', 'options', 'expected'),
  [
    ('mosi_utterance/clean', {'task': 'ranking'}, "task is 'ranking'; expected one of binary, regression, multiclass"),
    ('mosi_utterance/clean', {'text': 'bert'}, "text is 'bert'; expected one of minilm, cnn, words"),
    ('mosi_utterance/official', {'text': 'cnn'}, 'trained on official test labels'),
    ('mosi_utterance/official', {'modalities': ('text', 'audio', 'vision')}, 'belong to the config'),
    ('mosi_utterance/cleen', {}, 'unknown data set mosi_utterance/cleen'),
    ('av_digits/official', {'weak': True}, "unknown data option 'weak'"),
    ('mosi_words', {'task': 'binary'}, 'takes no options'),
  ],
)
def test_options_that_do_not_exist(name, options, expected, tmp_path):
  with pytest.raises(UserError, match=expected):
    load(name, tmp_path, tmp_path, **options)


@pytest.mark.parametrize(
  ('name', 'file'),
  [
    ('mosi_utterance', 'mosi_utterance.npz'),
    ('mosi_words', 'mosi_valid_aligned.npz'),
    ('av_digits', 'av_digits.npz'),
  ],
)
def test_absent_and_damaged_files_are_explained(name, file, tmp_path):
  with pytest.raises(UserError, match=rf'needs the file {file}; not found in .*--config.data.manual_dir=DIR'):
    load(name, tmp_path / 'tfds', tmp_path / 'manual')
  (tmp_path / 'manual').mkdir()
  path = tmp_path / 'manual' / file
  path.write_bytes(b'no archive')
  with pytest.raises(UserError, match=rf'{file} cannot be read as .npz'):
    load(name, tmp_path / 'tfds', tmp_path / 'manual')
  np.savez(path, label=np.zeros(3), other=np.zeros(2))
  with pytest.raises(UserError, match=rf"{file} has no array '\w+'; found label, other"):
    load(name, tmp_path / 'tfds', tmp_path / 'manual')
  np.savez(path, **{k: np.array([{}], dtype=object) for k in ('utt_id', 'audio_logmel')})
  with pytest.raises(UserError, match=rf'{file} cannot be read as .npz \(Object arrays'):
    load(name, tmp_path / 'tfds', tmp_path / 'manual')


def small_av_digits(n=12):
  rng = np.random.default_rng(0)
  return {
    'audio_logmel': rng.normal(size=(n, 48, 32)).astype(np.float32),
    'audio_len': np.full(n, 40),
    'image': rng.random((n, 28, 28)).astype(np.float32),
    'image_weak': rng.random((n, 28, 28)).astype(np.float32),
    'label': np.arange(n) % 10,
    'speaker': np.array(['a', 'b'])[np.arange(n) % 2],
    'recording': np.arange(n),
    'split': np.arange(n) % 3,
    'split_speaker': np.arange(n) % 3,
  }


def member(shape, dtype='<f4', content=b''):
  """A .npy file whose header says what it likes."""
  header = f"{{'descr': {dtype!r}, 'fortran_order': False, 'shape': {shape}, }}\n".encode()
  return b'\x93NUMPY\x01\x00' + len(header).to_bytes(2, 'little') + header + content


def crafted(path, name, content, compression=zipfile.ZIP_DEFLATED):
  """The archive of `small_av_digits` with one member written by hand."""
  with io.BytesIO() as file:
    np.savez(file, **{key: a for key, a in small_av_digits().items() if key != name})
    path.write_bytes(file.getvalue())
  with zipfile.ZipFile(path, 'a') as archive:
    archive.writestr(f'{name}.npy', content, compression)


def _damaged(path, compression):
  """A bit of the compressed content of `image` is another."""
  with io.BytesIO() as file:
    np.save(file, small_av_digits()['image'])
    crafted(path, 'image', file.getvalue(), compression)
  content = bytearray(path.read_bytes())
  with zipfile.ZipFile(path) as archive:
    content[archive.getinfo('image.npy').header_offset + 3000] ^= 1
  path.write_bytes(content)


def _array(name, value):
  """One array is another."""
  return lambda path: np.savez(path, **small_av_digits() | {name: value})


def _value(name, place, value):
  """One value is another."""

  def write(path):
    arrays = small_av_digits()
    arrays[name][place] = value
    np.savez(path, **arrays)

  return write


@pytest.mark.parametrize(
  ('write', 'expected'),
  [
    (lambda p: _damaged(p, zipfile.ZIP_STORED), 'cannot be read as .npz (Bad CRC-32'),
    (lambda p: _damaged(p, zipfile.ZIP_DEFLATED), 'cannot be read as .npz ('),
    (lambda p: _damaged(p, zipfile.ZIP_BZIP2), 'cannot be read as .npz ('),
    (lambda p: _damaged(p, zipfile.ZIP_LZMA), 'cannot be read as .npz ('),
    (lambda p: crafted(p, 'image', member((10**12, 28, 28))), 'cannot be read as .npz (it ends before the'),
    (lambda p: crafted(p, 'image', member((12, 28, 28), content=b'0' * 37700)), 'cannot be read as .npz (it has other'),
    (lambda p: crafted(p, 'image', member('(' * 300)), 'cannot be read as .npz ('),
    (lambda p: crafted(p, 'image', member("(12, 'a')")), 'cannot be read as .npz ('),
    (lambda p: crafted(p, 'image', member((-1, 28, 28))), 'cannot be read as .npz ('),
    (lambda p: crafted(p, 'image', member((2**40, 2**40, 0))), 'cannot be read as .npz ('),
    (lambda p: crafted(p, 'image', member((12,), '|O', b'0' * 96)), 'Object arrays are pickles'),
    (lambda p: crafted(p, 'image', member((12,), '<M8[s]', b'0' * 96)), 'values of type datetime64[s]'),
    (lambda p: crafted(p, 'image', b'\x93NUMPY\x09\x00' + bytes(90)), 'cannot be read as .npz (version (9, 0)'),
    (lambda p: crafted(p, 'image', bytes(200 << 20)), 'which no such arrays do'),
    (lambda p: crafted(p, 'speaker', member((12,), '<U1', b'\xff' * 48)), 'cannot be read as .npz ('),
    (
      lambda p: crafted(p, 'speaker', member((12,), '|S1', b'\xff' * 12)),
      "speaker of row 0 is b'\\xff', which is not UTF-8",
    ),
    (_array('label', np.zeros(12)), 'label holds float64; expected whole numbers'),
    (_array('label', np.zeros((12, 1), int)), 'label has shape (12, 1); expected (12)'),
    (_array('label', np.zeros(11, int)), 'label has shape (11,); expected (12)'),
    (_array('image', np.zeros((12, 28, 27))), 'image has shape (12, 28, 27); expected (12, 28, 28)'),
    (_array('speaker', np.arange(12)), 'speaker holds int64; expected text'),
    (_value('label', 7, 10), 'label of row 7 is 10; expected 0 to 9'),
    (_value('split', 3, -1), 'split of row 3 is -1; expected 0 to 2'),
    (_value('audio_len', 5, 49), 'audio_len of row 5 is 49; expected 0 to 48'),
    (
      lambda p: np.savez(p, **small_av_digits() | {'label': np.zeros(12, int), 'recording': np.zeros(12, int)}),
      "cannot be prepared as data set av_digits/official/1.0.0 (two samples have the id '0_",
    ),
  ],
)
def test_crafted_and_damaged_archives_are_explained(write, expected, tmp_path):
  path = tmp_path / 'manual' / 'av_digits.npz'
  path.parent.mkdir()
  write(path)
  with pytest.raises(UserError) as caught:
    load('av_digits', tmp_path / 'tfds', path.parent)
  assert expected in str(caught.value)
  assert str(path) in str(caught.value)
  assert '\n' not in str(caught.value)


def test_small_archives_are_read(tmp_path):
  (tmp_path / 'manual').mkdir()
  arrays = small_av_digits()
  np.savez_compressed(tmp_path / 'manual' / 'av_digits.npz', **arrays | {'image': np.asfortranarray(arrays['image'])})
  split = load('av_digits', tmp_path / 'tfds', tmp_path / 'manual').splits['validation']
  rows = [int(key.rpartition('_')[2]) for key in split.ids]
  assert sorted(rows) == [1, 4, 7, 10]
  np.testing.assert_array_equal(split.features['image'][..., 0], arrays['image'][rows])
  np.testing.assert_array_equal(split.features['audio'][:, :40], arrays['audio_logmel'][rows, :40])


@pytest.mark.parametrize(
  ('blob', 'offsets', 'expected'),
  [
    (b'caf\xc3\xa9', [0, 3, 5], ['caf', '\u00e9']),
    (b'caf\xc3\xa9', [0, 4, 5], 'text 0 is'),
    (b'abc', [0, 2, 1, 3], 'do not divide 3 bytes into 2'),
    (b'abc', [0, 4, 3], 'do not divide'),
    (b'abc', [0, 1, 2], 'do not divide'),
    (b'abc', [1, 2, 3], 'do not divide'),
    (b'abc', [], 'do not divide'),
  ],
)
def test_texts_behind_one_another(blob, offsets, expected):
  arguments = ('FILE', np.frombuffer(blob, np.uint8), np.array(offsets, int), 2)
  if isinstance(expected, list):
    assert npz_source.texts(*arguments) == expected
  else:
    with pytest.raises(UserError, match=expected):
      npz_source.texts(*arguments)
