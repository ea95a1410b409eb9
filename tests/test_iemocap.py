"""IEMOCAP: three layouts of files read back as written, split by session and dialogue, and explained when wrong."""

import dataclasses
import io
import os
import pickle
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest

from dream_jax.cli import flags
from dream_jax.data.builders.iemocap import sources
from dream_jax.data.builders.iemocap.iemocap import Iemocap, split_dialogues
from dream_jax.data.datasets import load_dataset
from dream_jax.errors import UserError

_ROOT = Path(__file__).resolve().parent.parent
SCENES = ('F_impro01', 'M_impro02', 'F_script01_1b')
TEXT, AUDIO, VISION = FEATURES = ('deberta-large-4-UTT', 'wav2vec-large-c-UTT', 'manet_UTT')
WIDTHS = (5, 3, 4)
NAMES = ('text', 'audio', 'vision')


@dataclasses.dataclass
class Spoken:
  """What the tests write down of an utterance; `label` counts happy, sad, neutral, angry, excited, frustrated."""

  id: str
  dialogue: str
  session: int
  speaker: str
  label: int
  said: str
  vectors: dict


def corpus(num_classes, widths=WIDTHS):
  """Three dialogues of four utterances in each session."""
  rng = np.random.default_rng(num_classes)
  spoken = []
  for session in range(1, 6):
    for scene in SCENES:
      for i, speaker in enumerate('FMMF'):
        dialogue = f'Ses0{session}{scene}'
        vectors = {n: rng.standard_normal(w).astype(np.float32) for n, w in zip(NAMES, widths, strict=True)}
        key, label = f'{dialogue}_{speaker}{i:03d}', int(rng.integers(num_classes))
        spoken.append(Spoken(key, dialogue, session, speaker, label, f'said {key}', vectors))
  return spoken


def by_dialogue(spoken, value):
  """A dict from dialogue to the values of its utterances, as the pickles have."""
  return {d: [value(s) for s in spoken if s.dialogue == d] for d in dict.fromkeys(s.dialogue for s in spoken)}


def dialogues_of(spoken):
  """(training, test) names of dialogues, as sets."""
  return {s.dialogue for s in spoken if s.session < 5}, {s.dialogue for s in spoken if s.session == 5}


def dump(path, content, protocol=2):
  path.parent.mkdir(parents=True, exist_ok=True)
  path.write_bytes(pickle.dumps(content, protocol=protocol))
  return path


def gcnet_labels(spoken):
  parts = (lambda s: s.id, lambda s: s.label, lambda s: s.speaker, lambda s: s.said)
  return [*(by_dialogue(spoken, part) for part in parts), *dialogues_of(spoken)]


def save(path, array):
  path.parent.mkdir(parents=True, exist_ok=True)
  np.save(path, array)


def write_gcnet(folder, spoken, num_classes=4):
  """Labels and features: text [D], audio [1, D], vision a folder with a face each of F and M."""
  path = dump(folder / f'IEMOCAP_features_raw_{num_classes}way.pkl', gcnet_labels(spoken))
  for s in spoken:
    save(folder / 'features' / TEXT / f'{s.id}.npy', s.vectors['text'])
    save(folder / 'features' / AUDIO / f'{s.id}.npy', s.vectors['audio'][None])
    for owner in 'FM':
      face = s.vectors['vision'] if owner == s.speaker else np.full_like(s.vectors['vision'], 9.0)
      save(folder / 'features' / VISION / s.id / f'compress_{owner}.npy', face)
  return path


def bc_lstm_parts(spoken, dtype=np.float32, stacked=False):
  make = np.stack if stacked else list
  features = (by_dialogue(spoken, lambda s, n=n: s.vectors[n].astype(dtype)) for n in NAMES)
  features = [{d: make(rows) for d, rows in part.items()} for part in features]
  ids, speakers, labels, said = (
    by_dialogue(spoken, lambda s, n=n: getattr(s, n)) for n in ('id', 'speaker', 'label', 'said')
  )
  train, test = dialogues_of(spoken)
  return [ids, speakers, labels, *features, said, train, sorted(test)]


MMIN_ORDER = (1, 3, 2, 0)  # Where happy, sad, neutral and angry stand in MMIN's labels.


def write_mmin(folder, spoken):
  """Two frames about the vector, padded with zeros, and labels in three parts."""
  h5py = pytest.importorskip('h5py')
  for name, file in zip(NAMES, ('L/bert_large.h5', 'A/comparE.h5', 'V/denseface.h5'), strict=True):
    (folder / file).parent.mkdir(parents=True, exist_ok=True)
    with h5py.File(folder / file, 'w') as h5:
      for s in spoken:
        frames = np.stack([s.vectors[name].astype(np.float64) + d for d in (-1.0, 1.0)])
        h5[s.id] = np.pad(frames, ((0, 6), (0, 0)))
  for part, members in (('trn', spoken[24:]), ('val', spoken[:12]), ('tst', spoken[12:24])):
    save(folder / f'target/1/{part}_int2name.npy', np.array([[s.id.encode()] for s in members]))
    save(folder / f'target/1/{part}_label.npy', np.eye(4, dtype=np.int64)[[MMIN_ORDER[s.label] for s in members]])
  return folder


def load(tmp_path, manual, config='four', **options):
  options.setdefault('widths', WIDTHS)
  return load_dataset(f'iemocap/{config}', tfds_dir=str(tmp_path / 'tfds'), manual_dir=str(manual), options=options)


def message_of(tmp_path, manual, config='four', **options):
  with pytest.raises(UserError) as caught:
    load(tmp_path, manual, config, **options)
  assert '\n' not in str(caught.value)
  return str(caught.value)


def parse(variant, *overrides):
  """The fields `config.data` of a command line."""
  return flags.parse(['main', f'--config={_ROOT}/configs/iemocap.py{variant}', *overrides]).config.data


def check(dataset, spoken, close=False):
  """Every utterance is in one split, with what was written."""
  compare = np.testing.assert_allclose if close else np.testing.assert_array_equal
  tolerance = {'rtol': 1e-5, 'atol': 1e-6} if close else {}
  by_id = {s.id: s for s in spoken}
  seen = []
  for split in dataset.splits.values():
    seen += split.ids.tolist()
    for i, key in enumerate(split.ids):
      s = by_id[key]
      for name in NAMES:
        compare(split.features[name][i], s.vectors[name], **tolerance)
      extras = {name: split.extras[name][i] for name in ('speaker', 'session', 'dialogue', 'raw_text')}
      assert (split.label[i], *extras.values()) == (s.label, s.speaker, s.session, s.dialogue, s.said)
  assert sorted(seen) == sorted(by_id)


def test_gcnet_round_trip_and_prepared_files_need_no_source(tmp_path, capsys):
  spoken = corpus(4)
  path = write_gcnet(tmp_path / 'manual', spoken)
  dataset = load(tmp_path, tmp_path / 'manual')
  check(dataset, spoken)
  assert f'60 utterances from {path}' in capsys.readouterr().out
  spec = dataset.spec
  assert (spec.name, spec.task, spec.data_kind) == ('iemocap/four, fold 5', 'multiclass', 'real')
  assert spec.names == NAMES
  assert [(m.kind, m.shape) for m in spec.modalities] == [('vector', (w,)) for w in WIDTHS]
  assert (spec.class_names, spec.num_outputs) == (('happy', 'sad', 'neutral', 'angry'), 4)
  shutil.rmtree(tmp_path / 'manual')
  check(load(tmp_path, tmp_path / 'manual'), spoken)


def test_options_of_the_config_file_reach_the_data(tmp_path):
  """Six classes, another fold and feature folder, files in a folder as GCNet keeps them."""
  spoken = corpus(6)
  folder = tmp_path / 'm' / 'dataset' / 'IEMOCAP'
  write_gcnet(folder, spoken, 6)
  (folder / 'features' / AUDIO).rename(folder / 'mine')
  data = parse(
    ':six',
    '--config.data.options.fold=2',
    '--config.data.options.widths=(5, 3, 4)',
    f'--config.data.options.features=("{TEXT}", "mine", "{VISION}")',
    f'--config.data.manual_dir={tmp_path / "m"}',
  )
  dataset = load_dataset(data.name, tfds_dir=str(tmp_path / 'tfds'), manual_dir=data.manual_dir, options=data.options)
  check(dataset, spoken)
  assert dataset.spec.class_names == ('happy', 'sad', 'neutral', 'angry', 'excited', 'frustrated')
  splits = dataset.splits
  assert set(splits['test'].extras['session']) == {2}
  assert set(splits['train'].extras['session']) == set(splits['validation'].extras['session']) == {1, 3, 4, 5}
  parts = [set(split.extras['dialogue']) for split in splits.values()]
  assert sum(len(part) for part in parts) == len(set.union(*parts)) == 15


def test_gcnet_frames_are_averaged_faces_are_the_speakers_and_nan_is_counted(tmp_path, capsys):
  spoken = corpus(4)
  write_gcnet(tmp_path / 'm', spoken)
  features = tmp_path / 'm' / 'features'
  frames, first, second, third = np.array([[1, 2, 3], [3, 6, 3]], np.float32), *spoken[:3]
  save(features / AUDIO / f'{first.id}.npy', frames)
  first.vectors['audio'] = np.array([2, 4, 3], np.float32)
  shutil.rmtree(features / VISION / first.id)  # Faces by frame, of both; F goes before M.
  for i, (owner, value) in enumerate([('F', 1), ('MF', 3), ('M', 100)]):
    save(features / VISION / first.id / f'{i:06d}_{owner}.npy', np.full(4, value, np.float32))
  (features / VISION / first.id / '.DS_Store').write_bytes(b'')
  first.vectors['vision'] = np.full(4, 2.0, np.float32)
  (features / VISION / second.id / 'compress_M.npy').unlink()  # M speaks: only the other face was found.
  save(features / VISION / third.id / 'compress_M.npy', np.zeros((0, 4), np.float32))
  second.vectors['vision'] = third.vectors['vision'] = np.zeros(4, np.float32)
  spoken[7].vectors['audio'][1] = np.nan
  spoken[8].vectors['text'][0] = -np.inf
  save(features / AUDIO / f'{spoken[7].id}.npy', spoken[7].vectors['audio'])
  save(features / TEXT / f'{spoken[8].id}.npy', spoken[8].vectors['text'])
  dataset = load(tmp_path, tmp_path / 'm')
  spoken[7].vectors['audio'][:] = spoken[8].vectors['text'][:] = 0.0
  check(dataset, spoken)
  assert dataset.non_finite == {'text': 1, 'audio': 1, 'vision': 0}
  assert '2 of 60 utterances have no vision (zeros)' in capsys.readouterr().out


def test_bc_lstm_round_trip(tmp_path):
  spoken = corpus(6)
  dump(tmp_path / 'm' / 'IEMOCAP_features' / 'IEMOCAP_features_raw.pkl', bc_lstm_parts(spoken, np.float64))
  check(load(tmp_path, tmp_path / 'm', 'six'), spoken)


def test_four_classes_of_six_take_excited_as_happy_and_leave_frustrated_out(tmp_path):
  """An array a dialogue here, large enough to be left in the file by the reader of pickles."""
  widths = (5, 700, 4)
  spoken = corpus(6, widths)
  dump(tmp_path / 'm' / 'IEMOCAP_features.pkl', bc_lstm_parts(spoken, np.float64, stacked=True), protocol=4)
  kept = [dataclasses.replace(s, label=s.label % 4) for s in spoken if s.label < 5]
  assert {s.label for s in spoken} == set(range(6))
  assert len(kept) < len(spoken)
  check(load(tmp_path, tmp_path / 'm', widths=widths), kept)


def test_mmin_round_trip_without_padding(tmp_path):
  spoken = [dataclasses.replace(s, said='') for s in corpus(4)]
  assert {s.label for s in spoken} == set(range(4))
  folder = write_mmin(tmp_path / 'm' / 'IEMOCAP_features_2021', spoken)
  import h5py

  with h5py.File(folder / 'V/denseface.h5', 'a') as h5:
    h5[spoken[3].id][:] = 0.0  # No face.
  spoken[3].vectors['vision'] = np.zeros(4, np.float32)
  check(load(tmp_path, tmp_path / 'm'), spoken, close=True)


def test_validation_is_an_eighth_and_the_same_in_every_fold():
  sessions = {f'Ses0{s}{g}_impro{i:02d}': s for s in range(1, 6) for g in 'FM' for i in range(14 + s % 3)}
  folds = {fold: split_dialogues(sessions, fold) for fold in range(1, 6)}
  for fold, splits in folds.items():
    assert splits['test'] == {d for d, s in sessions.items() if s == fold}
    assert sum(len(part) for part in splits.values()) == len(sessions)
    assert not splits['train'] & splits['validation']
    assert 0.1 < len(splits['validation']) / len(splits['train'] | splits['validation']) < 0.15
    assert splits == split_dialogues(dict(reversed(sessions.items())), fold)
  everywhere = set.union(*(splits['validation'] for splits in folds.values()))
  for fold, splits in folds.items():
    assert splits['validation'] == {d for d in everywhere if sessions[d] != fold}
  # Written down: with another choice, a study that is continued would train on what it was validated on.
  three = {'Ses01M_impro01': 1, 'Ses01M_impro02': 1, 'Ses01M_impro03': 1}
  assert split_dialogues(three, 5)['validation'] == {'Ses01M_impro03'}


def test_the_first_layout_with_all_its_files_is_taken(tmp_path):
  spoken = corpus(4)
  write_mmin(tmp_path, spoken)
  assert sources.find(str(tmp_path), 4, FEATURES).path == str(tmp_path)
  assert sources.find(str(tmp_path), 6, FEATURES) is None  # MMIN has four classes.
  path = dump(tmp_path / 'iemocap' / 'IEMOCAP_features.pkl', bc_lstm_parts(spoken))
  assert sources.find(str(tmp_path), 4, FEATURES).path == str(path)
  labels = write_gcnet(tmp_path, spoken)
  assert sources.find(str(tmp_path), 4, FEATURES).path == str(labels)
  assert sources.find(str(tmp_path), 6, FEATURES).path == str(path)
  shutil.rmtree(tmp_path / 'features' / TEXT)  # GCNet's repository has the labels alone.
  assert sources.find(str(tmp_path), 4, FEATURES).path == str(path)


def _gcnet(change):
  def write(folder):
    spoken = corpus(4)
    path = write_gcnet(folder, spoken)
    content = gcnet_labels(spoken)
    changed = change(folder, content, spoken[0])
    if changed is not None:
      dump(path, changed)
    return path

  return write


def _labels(change):
  """A change of the pickle alone, in place."""

  def changed(folder, content, first):
    change(content, first.dialogue)
    return content

  return _gcnet(changed)


def _file(name, content):
  def change(folder, pickled, first):
    path = folder / 'features' / name.format(first.id)
    path.unlink(missing_ok=True)
    if isinstance(content, bytes):
      path.write_bytes(content)
    elif content is not None:
      save(path, content)

  return _gcnet(change)


def _archive():
  with io.BytesIO() as file:
    np.savez(file, np.zeros(3))
    return file.getvalue()


def _bc_lstm(change):
  def write(folder):
    content = bc_lstm_parts(corpus(6))
    change(content)
    return dump(folder / 'IEMOCAP_features.pkl', content)

  return write


def _drop_sessions(content, _):
  content[4:] = [{d for d in content[4] if d[4] != '3'}, set()]


def _in_dialogue(part, value):
  return _labels(lambda content, dialogue: content[part].__setitem__(dialogue, value(content[part][dialogue])))


_AUDIO_FILE = AUDIO + '/{}.npy'
_FACE_FILE = VISION + '/{}/compress_F.npy'


@pytest.mark.parametrize(
  ('write', 'expected'),
  [
    (_file(_AUDIO_FILE, None), ('Ses01F_impro01_F000 has no audio features', 'nor a folder', 'data.options.features')),
    (_file(_AUDIO_FILE, b'\x93NUMPY\x01\x00'), ('F000.npy cannot be read as a .npy array', 'extract or fetch')),
    (_file(_AUDIO_FILE, b''), ('F000.npy cannot be read as a .npy array',)),
    (_file(_AUDIO_FILE, _archive()), ('F000.npy cannot be read as a .npy array (the magic string',)),
    (_file(_AUDIO_FILE, np.zeros((2, 2, 3))), ('shape (2, 2, 3); expected numbers [D] or [T, D]',)),
    (_file(_AUDIO_FILE, np.float32(np.nan)), ('shape (); expected numbers [D] or [T, D]',)),
    (_file(_AUDIO_FILE, np.array(['a'] * 3)), ('F000.npy are <U1 of shape (3,); expected numbers',)),
    (_file(_AUDIO_FILE, np.zeros(7)), ('(5, 7, 4) wide; expected (5, 3, 4)', 'data.options.widths="(5, 7, 4)"')),
    (_file(_FACE_FILE, np.zeros(7)), ('(5, 3, 7) wide', 'widths="(5, 3, 7)"')),
    (_file(VISION + '/{}/left.npy', np.zeros(4)), ('left.npy is the face of nobody; expected F or M in its name',)),
    (_file(VISION + '/{}/next_F.npy', np.zeros(3)), ('differ in width',)),
    (
      _labels(lambda c, d: c.append(set())),
      ('holds a list of 7; expected a list of 6: ids, labels', 'another data set'),
    ),
    (_gcnet(lambda *_: {'train': {}}), ('holds a dict; expected a list of 6',)),
    (_labels(lambda c, d: c.reverse()), ('train is a dict; expected names of dialogues',)),
    (_labels(lambda c, d: c.__setitem__(1, [1])), ('labels is a list; expected a dict by dialogue',)),
    (_labels(lambda c, d: c[1].pop(d)), ('labels lacks dialogue Ses01F_impro01',)),
    (_labels(lambda c, d: c[0].__setitem__(d, 3)), ('ids of dialogue Ses01F_impro01 is a int; expected a list',)),
    (_in_dialogue(2, lambda x: x[:-1]), ('has 4 ids, 4 labels, 3 speakers, 4 sentences; expected as many of each',)),
    (_in_dialogue(1, lambda x: [4, *x[1:]]), ('its label is 4; expected 0 to 3 (happy, sad, neutral, angry)',)),
    (_in_dialogue(1, lambda x: [-1, *x[1:]]), ('its label is -1; expected 0 to 3',)),
    (_in_dialogue(1, lambda x: [0.5, *x[1:]]), ('its label is 0.5; expected 0 to 3',)),
    (_in_dialogue(2, lambda x: ['X', *x[1:]]), ("the speaker of Ses01F_impro01_F000 is 'X'; expected F or M",)),
    (
      _in_dialogue(0, lambda x: ['Ses06F_impro01_F000', *x[1:]]),
      ("has utterance 'Ses06F_impro01_F000'; expected ids",),
    ),
    (
      _in_dialogue(0, lambda x: [b'Ses01F_impro01_F0\xe9', *x[1:]]),
      ("the id of an utterance is b'Ses01F_impro01_F0\\xe9', which is not UTF-8",),
    ),
    (_in_dialogue(3, lambda x: [b'\xff', *x[1:]]), ("the sentence of Ses01F_impro01_F000 is b'\\xff', which is not",)),
    (_in_dialogue(3, lambda x: [None, *x[1:]]), ('the sentence of Ses01F_impro01_F000 is a NoneType; expected text',)),
    (_in_dialogue(3, lambda x: 'abcd'), ('sentences of dialogue Ses01F_impro01 is a str; expected a list',)),
    (_labels(lambda c, d: c.__setitem__(4, [b'\xff'])), ("a dialogue in train is b'\\xff', which is not UTF-8",)),
    (_labels(lambda c, d: c[3].__setitem__(d.encode(), c[3][d])), ('sentences has a dialogue twice',)),
    (_in_dialogue(0, lambda x: ['dia1_utt2', *x[1:]]), ("has utterance 'dia1_utt2'; expected ids such as Ses03F",)),
    (_in_dialogue(0, lambda x: [x[1], *x[1:]]), ('has utterance Ses01F_impro01_M001 more than once',)),
    (_labels(_drop_sessions), ('no dialogue is left for test in fold 5; sessions found: 1, 2, 4',)),
    (_labels(lambda c, d: c.__setitem__(4, set())), ('left for train', 'sessions found: 5;')),
    (_bc_lstm(lambda c: c.pop()), ('holds a list of 8; expected a list of 9: ids, speakers, labels, text, audio',)),
    (_bc_lstm(lambda c: c[3]['Ses01F_impro01'].pop()), ('4 labels, 3 text, 4 audio',)),
    (_bc_lstm(lambda c: c[4].pop('Ses05M_impro02')), ('audio lacks dialogue Ses05M_impro02',)),
    (_bc_lstm(lambda c: c[3]['Ses01F_impro01'].__setitem__(1, [[1.0], [2.0, 3.0]])), ('_M001 are unequal lists',)),
    (_bc_lstm(lambda c: c[3]['Ses01F_impro01'].__setitem__(1, np.zeros(9))), ('_M001 are (9, 3, 4) wide',)),
    (
      _bc_lstm(lambda c: c[2]['Ses01F_impro01'].__setitem__(1, 6)),
      ('label is 6; expected 0 to 5 (happy,', 'frustrated'),
    ),
  ],
)
def test_wrong_files_are_explained(write, expected, tmp_path):
  path = write(tmp_path / 'm')
  message = message_of(tmp_path, tmp_path / 'm')
  for part in (*expected, str(path.parent)):
    assert part in message
  assert not list((tmp_path / 'tfds').glob('iemocap/four_*/1*'))  # Nothing half-written stays.


def test_wrong_mmin_files_are_explained(tmp_path, monkeypatch):
  h5py = pytest.importorskip('h5py')
  spoken = corpus(4)
  folder = tmp_path / 'm'

  def check_message(*expected):
    message = message_of(tmp_path, folder)
    for part in (*expected, str(folder)):
      assert part in message
    shutil.rmtree(folder)
    write_mmin(folder, spoken)

  write_mmin(folder, spoken)
  labels = np.load(folder / 'target/1/val_label.npy')
  save(folder / 'target/1/val_label.npy', labels[1:])
  check_message('has shape (11, 4); expected (12, 4), one row a name')
  for wrong in (labels * 0, labels * 2 - np.roll(labels, 1, axis=1), np.full(labels.shape, 'a')):
    save(folder / 'target/1/val_label.npy', wrong)
    check_message('rows that are not one-hot')
  save(folder / 'target/1/val_int2name.npy', np.array([['clip']] * 12))
  check_message("has utterance 'clip'")
  with h5py.File(folder / 'A/comparE.h5', 'a') as h5:
    del h5[spoken[0].id]
  check_message('comparE.h5 lacks utterance Ses01F_impro01_F000')
  with h5py.File(folder / 'A/comparE.h5', 'a') as h5:
    del h5[spoken[0].id]
    h5.create_group(spoken[0].id)
  check_message('comparE.h5 lacks utterance Ses01F_impro01_F000')
  (folder / 'V/denseface.h5').write_bytes(b'no HDF5')
  check_message('denseface.h5 cannot be read as HDF5')
  monkeypatch.setitem(sys.modules, 'h5py', None)
  message = message_of(tmp_path, folder)
  assert 'h5py, which is not installed; install it: pip install h5py' in message


class Payload:
  def __init__(self, trace):
    self.trace = trace

  def __reduce__(self):
    return os.system, (f'touch {self.trace}',)


def test_payloads_are_refused_and_not_run(tmp_path):
  trace = tmp_path / 'trace'
  spoken = corpus(4)
  labels = gcnet_labels(spoken)
  path = write_gcnet(tmp_path / 'm', spoken)
  labels[3][spoken[0].dialogue][0] = Payload(trace)
  for content in (Payload(trace), labels):
    dump(path, content)
    assert 'posix.system' in message_of(tmp_path, tmp_path / 'm')
  write_gcnet(tmp_path / 'm', spoken)
  feature = tmp_path / 'm' / 'features' / TEXT / f'{spoken[0].id}.npy'
  for array in (np.array([Payload(trace)], dtype=object), None):
    if array is None:
      dump(feature, Payload(trace))
    else:
      np.save(feature, array, allow_pickle=True)
    assert f'{feature} cannot be read as a .npy array' in message_of(tmp_path, tmp_path / 'm')
  dump(tmp_path / 'b' / 'IEMOCAP_features.pkl', [Payload(trace)] * 9)
  assert 'posix.system' in message_of(tmp_path, tmp_path / 'b', 'six')
  assert not trace.exists()
  pickle.loads(pickle.dumps(Payload(trace)))
  assert trace.exists()  # The payload works where it is not refused.


def test_changed_features_and_labels_are_seen_and_all_files_are_counted(tmp_path, capsys):
  spoken = corpus(4)
  path = write_gcnet(tmp_path / 'm', spoken)
  load(tmp_path, tmp_path / 'm')
  files = 1 + len(spoken) * 4  # Of each utterance a text, an audio and two faces.
  assert f'prepared from {files} files in {tmp_path / "m"}, ' in capsys.readouterr().out
  feature = tmp_path / 'm' / 'features' / TEXT / f'{spoken[3].id}.npy'
  whole = feature.read_bytes()
  feature.write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
  assert f'the file {feature} changed since it was prepared' in message_of(tmp_path, tmp_path / 'm')
  feature.write_bytes(whole)
  load(tmp_path, tmp_path / 'm')
  feature.rename(feature.with_name('other.npy'))
  message = message_of(tmp_path, tmp_path / 'm')
  assert f'{feature} is no more among the files that {tmp_path / "tfds"}' in message
  feature.with_name('other.npy').rename(feature)
  with open(path, 'ab') as file:
    file.write(b'.')
  assert f'the file {path} changed since it was prepared' in message_of(tmp_path, tmp_path / 'm')


def test_a_header_that_claims_too_much_is_refused(tmp_path):
  spoken = corpus(4)
  write_gcnet(tmp_path / 'm', spoken)
  feature = tmp_path / 'm' / 'features' / TEXT / f'{spoken[0].id}.npy'
  feature.write_bytes(feature.read_bytes().replace(b'(5,), }        ', b'(5000000000,), }'[:15]))
  assert b'(5000000000,)' in feature.read_bytes()
  assert f'{feature} cannot be read as a .npy array' in message_of(tmp_path, tmp_path / 'm')


@pytest.mark.parametrize('config', ['four', 'six'])
def test_absent_files_are_explained_on_one_line(config, tmp_path):
  message = message_of(tmp_path, tmp_path / 'm', config)
  way = {'four': '4way', 'six': '6way'}[config]
  for part in (
    f'data set iemocap/{config}',
    f'IEMOCAP_features_raw_{way}.pkl with the folders features/{TEXT}, features/{AUDIO} and features/{VISION}',
    'zeroQiaoba/GCNet',
    'IEMOCAP_features.pkl or IEMOCAP_features_raw.pkl, the pickle [ids, speakers, labels, text, audio, vision',
    'declare-lab/conv-emotion',
    str(tmp_path / 'm'),
    'put the files there, or name their folder with --config.data.manual_dir=DIR',
  ):
    assert part in message
  assert ('A/comparE.h5' in message) == (config == 'four')
  with pytest.raises(UserError) as caught:
    load_dataset(f'iemocap/{config}', tfds_dir=str(tmp_path / 'tfds'))
  assert str(tmp_path / 'tfds' / 'downloads' / 'manual') in str(caught.value)
  assert 'name their folder with --config.data.manual_dir=DIR' in str(caught.value)


def test_labels_without_features_are_explained(tmp_path):
  path = write_gcnet(tmp_path / 'm', corpus(4))
  message = message_of(tmp_path, tmp_path / 'm', features=(TEXT, 'hubert', 'clip'))
  assert f'{path} needs feature folders beside it' in message
  assert 'hubert (audio), clip (vision); extract them' in message
  assert TEXT not in message


@pytest.mark.parametrize(
  ('options', 'expected'),
  [
    ({'fold': 0}, 'config.data.options.fold is 0; expected 1 to 5'),
    ({'fold': 6}, 'config.data.options.fold is 6'),
    ({'fold': '1'}, "config.data.options.fold is '1' (str); expected int"),
    ({'folds': 1}, 'did you mean config.data.options.fold?'),
    ({'widths': (5, 3)}, 'config.data.options.widths is (5, 3) (tuple) with 2 entries; expected tuple[int, int, int]'),
    ({'widths': (5, 3, 0)}, 'config.data.options.widths[2] is 0; expected 1 to'),
    ({'widths': (5, 3, 2.5)}, 'config.data.options.widths[2] is 2.5'),
    ({'features': ('a', 'b')}, "config.data.options.features is ('a', 'b') (tuple) with 2 entries"),
    ({'features': ('a', 'b', '')}, 'config.data.options.features[2] is empty'),
  ],
)
def test_wrong_options_are_explained(options, expected, tmp_path):
  assert expected in message_of(tmp_path, tmp_path / 'm', **options)


def test_unknown_config_and_folder(tmp_path):
  assert 'unknown data set iemocap/five; expected iemocap/four, iemocap/six' in message_of(tmp_path, tmp_path, 'five')
  with pytest.raises(UserError, match='takes no folder'):
    load_dataset('iemocap', folder='x')


@pytest.mark.parametrize('variant', ['', ':four', ':six'])
def test_defaults_of_the_config_file_are_those_of_the_data_set(variant):
  data = parse(variant)
  assert data.name == ('iemocap/six' if variant == ':six' else 'iemocap/four')
  assert Iemocap.config_from_options(data.name.partition('/')[2], data.options).name in ('four', 'six')  # No digest.
