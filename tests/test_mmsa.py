"""MMSA pickles: read back as written, and explained when they are wrong."""

import hashlib
import os
import pickle
import subprocess
import sys

import numpy as np
import pytest

from dream_jax.data.builders import mmsa_builder
from dream_jax.data.builders.ch_sims.ch_sims import ChSims
from dream_jax.data.builders.cmu_mosei.cmu_mosei import CmuMosei
from dream_jax.data.datasets import load_dataset
from dream_jax.data.pipeline import eval_batches
from dream_jax.data.prepare import prepare
from dream_jax.errors import UserError
from dream_jax.evaluation import metrics
from dream_jax.machine import memory
from dream_jax.missingness.missing import Missing

ROWS = {'train': 5, 'valid': 3, 'test': 4}
SPLITS = {'train': 'train', 'validation': 'valid', 'test': 'test'}
# Data set -> (file, [T, D] of text, audio, vision, highest label); aligned where all T are equal.
LAYOUTS = {
  'cmu_mosi/aligned': ('aligned_50.pkl', ((50, 768), (50, 5), (50, 20)), 3.0),
  'cmu_mosi/unaligned': ('unaligned_50.pkl', ((50, 768), (375, 5), (500, 20)), 3.0),
  'cmu_mosei/aligned': ('aligned_50.pkl', ((50, 768), (50, 74), (50, 35)), 3.0),
  'cmu_mosei/unaligned': ('unaligned_50.pkl', ((50, 768), (500, 74), (500, 35)), 3.0),
  'ch_sims/unaligned': ('unaligned_39.pkl', ((39, 768), (400, 33), (55, 709)), 1.0),
}
MOSEI = 'cmu_mosei/aligned'


def make_split(name, n, dataset=MOSEI):
  """A split as MMSA writes it: float64 audio and vision, BERT states in the padding too, -inf in audio."""
  _, ((words, text_width), (audio_steps, audio_width), (vision_steps, vision_width)), highest = LAYOUTS[dataset]
  rng = np.random.default_rng(n)
  lengths = rng.integers(4, words - 10, n)
  aligned = dataset.endswith('/aligned')
  audio_lengths = lengths if aligned else rng.integers(4, audio_steps, n)
  vision_lengths = lengths if aligned else rng.integers(4, vision_steps, n)
  audio = rng.standard_normal((n, audio_steps, audio_width))
  vision = rng.standard_normal((n, vision_steps, vision_width))
  for i in range(n):
    audio[i, audio_lengths[i] :] = 0.0
    vision[i, vision_lengths[i] :] = 0.0
  audio[0, 1, 3] = -np.inf
  bert = np.zeros((n, 3, words), np.int64)
  bert[:, 0] = rng.integers(1000, 30000, (n, words))
  bert[:, 1] = np.arange(words) < lengths[:, None]
  split = {
    'raw_text': np.array([f'{name} text {i}' for i in range(n)], dtype=object),
    'audio': audio,
    'vision': vision,
    'id': [f'-a_{name}{i}$_${i}' for i in range(n)],
    'text': rng.standard_normal((n, words, text_width)).astype(np.float32),
    'text_bert': bert,
    'annotations': ['Neutral'] * n,
    'classification_labels': np.ones(n),
    'regression_labels': rng.uniform(-highest, highest, n),
  }
  if not aligned:
    split |= {'audio_lengths': audio_lengths.tolist(), 'vision_lengths': vision_lengths.tolist()}
  if dataset.startswith('ch_sims'):
    split |= {f'regression_labels_{m}': rng.uniform(-1, 1, n) for m in 'TAV'}
  return split


def make_content(dataset=MOSEI):
  return {name: make_split(name, n, dataset) for name, n in ROWS.items()}


def write(folder, content, *, dataset=MOSEI, protocol=4):
  path = folder / LAYOUTS[dataset][0]
  path.parent.mkdir(parents=True, exist_ok=True)
  path.write_bytes(pickle.dumps(content, protocol=protocol))
  return path


def load(tmp_path, manual, dataset=MOSEI):
  return load_dataset(dataset, tfds_dir=str(tmp_path / 'tfds'), manual_dir=str(manual))


def message_of(tmp_path, manual, dataset=MOSEI):
  with pytest.raises(UserError) as caught:
    load(tmp_path, manual, dataset)
  assert '\n' not in str(caught.value)
  return str(caught.value)


@pytest.mark.parametrize('dataset', LAYOUTS)
def test_round_trip(dataset, tmp_path, capsys):
  content = make_content(dataset)
  published = {'cmu_mosi': 'MOSI', 'cmu_mosei': 'MOSEI', 'ch_sims': 'SIMS'}[dataset.partition('/')[0]]
  write(tmp_path / 'manual' / published / 'Processed', content, dataset=dataset)
  loaded = load(tmp_path, tmp_path / 'manual', dataset)
  spec = loaded.spec
  assert spec.names == ('text', 'audio', 'vision')
  assert tuple(m.shape for m in spec.modalities) == LAYOUTS[dataset][1]
  assert spec.label_range == (-LAYOUTS[dataset][2], LAYOUTS[dataset][2])
  assert spec.data_kind == 'real'
  assert loaded.non_finite == {'text': 0, 'audio': 3, 'vision': 0}
  out = capsys.readouterr().out
  assert '3 in audio' in out
  assert 'sha256 differs' in out
  for ours, theirs in SPLITS.items():
    split, source = loaded.splits[ours], content[theirs]
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
        length = n if dataset.endswith('/aligned') else source[f'{name}_lengths'][row]
        assert split.features[f'{name}_length'][i] == length
    np.testing.assert_array_equal(split.label, source['regression_labels'][rows].astype(np.float32))
    np.testing.assert_array_equal(split.extras['text_bert'], source['text_bert'][rows])
    assert list(split.extras['raw_text']) == [source['raw_text'][r] for r in rows]
    assert set(split.extras['annotation']) == {'Neutral'}
    for name, letter in (('text', 'T'), ('audio', 'A'), ('vision', 'V')):
      assert (f'label_{name}' in split.extras) == (published == 'SIMS')
      if published == 'SIMS':
        expected = source[f'regression_labels_{letter}'][rows].astype(np.float32)
        np.testing.assert_array_equal(split.extras[f'label_{name}'], expected)
  check_again = load(tmp_path, tmp_path / 'absent', dataset)
  assert len(check_again.splits['train']) == 5  # Prepared files need no source.


def test_known_content_reaches_the_batches_and_the_metrics(tmp_path):
  content = make_content()
  write(tmp_path / 'manual', content)
  prepared = prepare(load(tmp_path, tmp_path / 'manual'), train_missing=Missing(), seed=0)
  (batch,) = eval_batches(prepared.splits['test'], prepared, missing=Missing(), seed=0, batch_size=4)
  source = content['test']
  rows = np.argsort(source['id'])
  audio = np.where(np.isfinite(source['audio'][rows]).all(-1, keepdims=True), source['audio'][rows], 0.0)
  inside = np.arange(50) < source['text_bert'][rows, 1].sum(1)[:, None]
  statistics = prepared.statistics
  scaled = (audio.astype(np.float32) - statistics.mean['audio']) / statistics.std['audio']
  np.testing.assert_array_equal(batch['inputs']['audio'], np.where(inside[..., None], scaled, np.float32(0)))
  label = source['regression_labels'][rows].astype(np.float32)
  np.testing.assert_array_equal(batch['label'], label)
  found = metrics.compute(prepared.spec, label[:, None] + np.float32(0.25), batch['label'])
  assert found['mae'] == pytest.approx(0.25, abs=1e-6)
  assert 'acc7' in found  # The metrics of this label range.


@pytest.mark.parametrize('share', [0.0, 0.2, 0.9, 0.9999])
def test_truncated_files(share, tmp_path):
  path = write(tmp_path / 'manual', make_content())
  data = path.read_bytes()
  path.write_bytes(data[: int(len(data) * share)])
  assert f'{path} cannot be read as a pickle' in message_of(tmp_path, tmp_path / 'manual')
  assert not list((tmp_path / 'tfds').glob('cmu_mosei/aligned/1*'))


def _without(key):
  return lambda content: content['test'].pop(key)


def _set(key, value):
  return lambda content: content['train'].__setitem__(key, value)


@pytest.mark.parametrize(
  ('change', 'expected'),
  [
    (lambda content: content.pop('valid'), "has no split 'valid'; found train, test"),
    (_without('audio'), "split 'test' lacks audio"),
    (_without('text_bert'), "has text_bert in split 'train' and not in all; expected it in all or none"),
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
  content = make_content()
  change(content)
  path = write(tmp_path / 'manual', content)
  message = message_of(tmp_path, tmp_path / 'manual')
  assert expected in message
  assert str(path) in message


def _row(key, row, value):
  """A change of one value of one row, in a list."""

  def change(content):
    content['train'][key] = list(content['train'][key])
    content['train'][key][row] = value

  return change


@pytest.mark.parametrize(
  ('change', 'expected'),
  [
    (_row('id', 3, b'caf\xe9$_$1'), "id of row 3 is b'caf\\xe9$_$1', which is not UTF-8"),
    (_row('id', 3, 'a\udce9$_$1'), 'id of row 3 is'),
    (_row('id', 3, 'a$_$1\0'), 'expected text without zero bytes at its end'),
    (_row('id', 3, ['a$_$1']), 'id of row 3 is a list; expected text'),
    (_set('id', 'a$_$1'), 'id is a str; expected a list of texts'),
    (_set('id', {'a$_$1': 1}), 'id is a dict; expected a list of texts'),
    (_row('raw_text', 2, b'\xff'), "raw_text of row 2 is b'\\xff', which is not UTF-8"),
    (_set('annotations', ['Neutral'] * 4), 'annotations has 4 rows; expected 5'),
    (
      lambda content: content['train']['text_bert'].__setitem__((4, 1, 0), 2),
      'row 4 of text_bert has an attention mask',
    ),
    (
      lambda content: content['train']['text_bert'].__setitem__((4, 0, 0), 2**40),
      'row 4 of text_bert holds 1099511627776',
    ),
  ],
)
def test_rows_that_cannot_be_kept_as_they_are(change, expected, tmp_path):
  content = make_content()
  change(content)
  path = write(tmp_path / 'manual', content)
  message = message_of(tmp_path, tmp_path / 'manual')
  assert expected in message
  assert str(path) in message
  assert not list((tmp_path / 'tfds').glob('cmu_mosei/aligned/1*'))


@pytest.mark.parametrize('value', [-1, 1.5, np.nan, 2**40])
def test_lengths_are_numbers_of_frames(value, tmp_path):
  content = make_content('cmu_mosei/unaligned')
  content['valid']['audio_lengths'][1] = value
  write(tmp_path / 'manual', content, dataset='cmu_mosei/unaligned')
  message = message_of(tmp_path, tmp_path / 'manual', 'cmu_mosei/unaligned')
  assert "split 'valid': audio_lengths" in message


def test_lengths_above_the_frames_that_are_there_are_refused(tmp_path):
  dataset = 'ch_sims/unaligned'
  content = make_content(dataset)
  content['test']['vision_lengths'][2:] = [56, 60]
  path = write(tmp_path / 'manual', content, dataset=dataset)
  assert message_of(tmp_path, tmp_path / 'manual', dataset) == (
    f"{path}: split 'test': vision_lengths has 56 in row 2 (2 of 4 rows are above 55); expected 0 to 55, the frames "
    'that vision has: where longer samples were cut, write 55 there'
  )


def test_the_published_file_may_have_the_lengths_of_whole_samples(tmp_path, monkeypatch, capsys):
  dataset = 'ch_sims/unaligned'
  content = make_content(dataset)
  content['test']['vision_lengths'][2] = 60
  path = write(tmp_path / 'manual', content, dataset=dataset)
  monkeypatch.setattr(ChSims.BUILDER_CONFIGS[0], 'sha256', hashlib.sha256(path.read_bytes()).hexdigest())
  loaded = load(tmp_path, tmp_path / 'manual', dataset)
  out = capsys.readouterr().out
  assert f'note: 1 samples of {path} were longer in vision than the 55 frames it holds of them\n' in out
  assert loaded.splits['test'].features['vision_length'].max() == 55


def test_ids_of_two_splits_are_told(tmp_path, capsys):
  content = make_content()
  content['test']['id'][2] = content['train']['id'][1]
  path = write(tmp_path / 'manual', content)
  load(tmp_path, tmp_path / 'manual')
  assert f'note: 1 ids are in more than one split of {path}, such as -a_train1$_$1\n' in capsys.readouterr().out


def test_ids_and_texts_in_bytes_are_decoded(tmp_path):
  content = make_content()
  ids = [f'caf\u00e9{i}$_${i}' for i in range(5)]
  content['train'] |= {'id': [i.encode() for i in ids], 'raw_text': [b'na\xc3\xafve'] * 5}
  write(tmp_path / 'manual', content)
  train = load(tmp_path, tmp_path / 'manual').splits['train']
  assert train.ids.tolist() == sorted(ids)
  assert set(train.extras['raw_text']) == {'na\u00efve'}


def test_a_source_that_changed_is_seen_whatever_its_time_and_size_say(tmp_path, capsys):
  content = make_content()
  path = write(tmp_path / 'manual', content)
  load(tmp_path, tmp_path / 'manual')
  whole = path.read_bytes()
  sha256 = hashlib.sha256(whole).hexdigest()
  assert f'prepared from {path}, ' in (out := capsys.readouterr().out)
  assert f'SHA-256 {sha256}; .pkl files carry no checksum: damage from before cannot be seen here' in out
  before = path.stat()
  damaged = bytearray(whole)
  damaged[whole.index(content['train']['text'][2].tobytes()) + 4001] ^= 64  # Another number, and no other sign of it.
  path.write_bytes(damaged)
  os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
  prepared = tmp_path / 'tfds' / 'cmu_mosei' / 'aligned' / '1.1.0'
  message = message_of(tmp_path, tmp_path / 'manual')
  assert f'the file {path} changed since it was prepared (SHA-256 was {sha256[:16]}..., now ' in message
  assert f'if the new one is right, delete {prepared} and run again' in message
  path.write_bytes(whole)
  load(tmp_path, tmp_path / 'manual')  # Only its time is another.
  other = write(tmp_path / 'other', make_content() | {'more': 1})
  assert f'the file {other} changed since' in message_of(tmp_path, tmp_path / 'other')
  path.unlink()
  load(tmp_path, tmp_path / 'manual')  # What is prepared needs no source.


def test_a_source_that_changes_while_it_is_prepared_is_refused(tmp_path, monkeypatch):
  path = write(tmp_path / 'manual', make_content())
  generate = mmsa_builder.MmsaBuilder._generate_examples

  def meanwhile(self, *arguments):
    yield from generate(self, *arguments)
    with open(path, 'ab') as file:
      file.write(b'.')

  monkeypatch.setattr(mmsa_builder.MmsaBuilder, '_generate_examples', meanwhile)
  assert f'{path} changed while it was prepared' in message_of(tmp_path, tmp_path / 'manual')
  assert not list((tmp_path / 'tfds').glob('cmu_mosei/aligned/*1.1.0'))


def test_the_published_file_is_said_to_be_it(tmp_path, capsys, monkeypatch):
  path = write(tmp_path / 'manual', make_content())
  sha256 = hashlib.sha256(path.read_bytes()).hexdigest()
  monkeypatch.setattr(CmuMosei.BUILDER_CONFIGS[0], 'sha256', sha256)
  load(tmp_path, tmp_path / 'manual')
  out = capsys.readouterr().out
  assert f'SHA-256 {sha256}: the published file\n' in out
  assert 'sha256 differs' not in out


def test_content_that_is_no_dict(tmp_path):
  write(tmp_path / 'manual', [1, 2])
  assert 'holds a list; expected a dict' in message_of(tmp_path, tmp_path / 'manual')


def test_unaligned_files_need_lengths(tmp_path):
  content = make_content('cmu_mosei/unaligned')
  del content['train']['audio_lengths']
  write(tmp_path / 'manual', content, dataset='cmu_mosei/unaligned')
  message = message_of(tmp_path, tmp_path / 'manual', 'cmu_mosei/unaligned')
  assert 'lacks audio_lengths, which unaligned files have' in message


def test_sims_files_need_the_labels_of_single_modalities(tmp_path):
  content = make_content('ch_sims/unaligned')
  del content['test']['regression_labels_V']
  path = write(tmp_path / 'manual', content, dataset='ch_sims/unaligned')
  assert 'lacks regression_labels_V' in message_of(tmp_path, tmp_path / 'manual', 'ch_sims/unaligned')
  content['test']['regression_labels_V'] = np.array([0.0, 0.5, -0.5, 1.5])
  path.write_bytes(pickle.dumps(content))
  message = message_of(tmp_path, tmp_path / 'manual', 'ch_sims/unaligned')
  assert 'regression_labels_V lie in [-0.5, 1.5]; expected [-1.0, 1.0]' in message


def test_the_file_of_another_data_set_is_recognised(tmp_path):
  write(tmp_path / 'manual', make_content('cmu_mosi/aligned'), dataset='cmu_mosi/aligned')
  message = message_of(tmp_path, tmp_path / 'manual', 'cmu_mosei/aligned')
  assert 'audio has shape (5, 50, 5); expected (5, 50, 74): is this the file of another data set?' in message


def test_without_bert_the_last_frame_tells_the_length(tmp_path):
  content = make_content()
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
  content = make_content()
  content['train']['vision'][:] = 0.0
  content['train']['vision'][:, -3:] = 1.0
  write(tmp_path / 'manual', content)
  features = load(tmp_path, tmp_path / 'manual').splits['train'].features
  assert (features['vision'][:, -3:] == 1.0).all()
  assert (features['vision_length'] == 50).all()


@pytest.mark.parametrize('dataset', LAYOUTS)
def test_absent_files_are_explained_on_one_line(dataset, tmp_path):
  file, ((words, width), *_), _ = LAYOUTS[dataset]
  message = message_of(tmp_path, tmp_path / 'manual', dataset)
  for part in (file, str(tmp_path / 'manual'), f'text [N, {words}, {width}]', 'MMSA', 'sha256', 'data.manual_dir=DIR'):
    assert part in message
  with pytest.raises(UserError) as caught:
    load_dataset(dataset, tfds_dir=str(tmp_path / 'tfds'))
  assert str(tmp_path / 'tfds' / 'downloads' / 'manual') in str(caught.value)
  assert '--config.data.manual_dir=DIR' in str(caught.value)
  assert '\n' not in str(caught.value)


def test_the_file_itself_in_the_place_of_its_folder(tmp_path):
  path = write(tmp_path / 'manual', make_content())
  expected = f'{path} is no folder; expected the folder of the source files: --config.data.manual_dir=DIR'
  assert message_of(tmp_path, path) == expected


def test_too_little_memory_is_refused_before_anything_is_written(tmp_path, monkeypatch):
  write(tmp_path / 'manual', make_content())
  monkeypatch.setattr(memory, 'available_bytes', lambda: 4_000_000)
  message = message_of(tmp_path, tmp_path / 'manual')
  values = 12 * 50 * (768 + 74 + 35)
  assert f'needs {2 * 4 * values / 1e6:.1f} MB of memory; 4.0 MB are available' in message
  assert not list((tmp_path / 'tfds').glob('cmu_mosei/aligned/1*'))
  monkeypatch.undo()
  load(tmp_path, tmp_path / 'manual')
  monkeypatch.setattr(memory, 'available_bytes', lambda: 4_000_000)
  assert '4.0 MB are available' in message_of(tmp_path, tmp_path / 'manual')


def test_a_killed_preparation_leaves_no_trace_behind_the_next(tmp_path):
  write(tmp_path / 'manual', make_content())
  # Killed while it writes the second split: no clean-up of its own can run.
  code = (
    'import os, sys; from dream_jax.data.builders.cmu_mosei.cmu_mosei import CmuMosei; '
    'from dream_jax.data.datasets import load_dataset; write = CmuMosei._generate_examples\n'
    'def kill(self, *arguments):\n'
    '  yield from write(self, *arguments)\n'
    '  os.kill(os.getpid(), 9)\n'
    'CmuMosei._generate_examples = kill\n'
    'load_dataset("cmu_mosei/aligned", tfds_dir=sys.argv[1], manual_dir=sys.argv[2])'
  )
  command = [sys.executable, '-c', code, str(tmp_path / 'tfds'), str(tmp_path / 'manual')]
  assert subprocess.run(command, capture_output=True, check=False).returncode == -9
  folder = tmp_path / 'tfds' / 'cmu_mosei' / 'aligned'
  assert list(folder.glob('*incomplete*'))
  assert not (folder / '1.1.0').exists()
  assert len(load(tmp_path, tmp_path / 'manual').splits['train']) == 5
  assert [p.name for p in folder.iterdir() if p.name != '.lock'] == ['1.1.0']
