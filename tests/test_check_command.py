"""What the check of a user's data says, and its command."""

import dataclasses
import json
import subprocess
import sys

import numpy as np
import pytest
from planted_data import OUTPUTS, SIZES, make

from dream_jax.datacheck import check, content, verdict, words
from dream_jax.datacheck.advice import advise
from dream_jax.datacheck.description import WIDTH
from dream_jax.datacheck.probe import Probes, Score
from dream_jax.errors import UserError

# Words.


@pytest.mark.parametrize(
  ('metric', 'value', 'low', 'order', 'p', 'expected'),
  [
    ('accuracy', 0.80, 0.75, 0.9, 0.001, 'strong'),  # 0.6 of the way from 0.5 to 1.
    ('accuracy', 0.74, 0.70, 0.9, 0.001, 'useful'),
    ('accuracy', 0.59, 0.51, 0.6, 0.001, 'weak'),
    ('accuracy', 0.59, 0.49, 0.6, 0.04, 'hint'),
    ('accuracy', 0.59, 0.49, 0.6, 0.06, 'nothing'),
    ('mae', 0.9, 0.8, 0.61, 0.001, 'strong'),
    ('mae', 0.9, 0.8, 0.31, 0.001, 'useful'),
    ('mae', 0.9, 0.8, 0.2, 0.01, 'weak'),
    ('mae', 0.2, 0.1, 0.2, 0.2, 'nothing'),
  ],
)
def test_levels(metric, value, low, order, p, expected):
  baseline = Score(0.5, 0.45, 0.55, 0.5, None, None, 1.0)
  probes = Probes('', metric, metric != 'mae', baseline=baseline)
  assert verdict.level(probes, Score(value, low, 2 * value - low, order, None, None, p)) == expected


@pytest.mark.parametrize(
  ('share', 'text'),
  [
    (0, '0 %'),
    (0.0004, '< 0.1 %'),
    (0.004, '0.4 %'),
    (0.035, '4 %'),
    (0.5, '50 %'),
    (0.994, '99 %'),
    (0.996, '99.6 %'),
    (0.9996, '> 99.9 %'),
    (1, '100 %'),
  ],
)
def test_shares_are_never_rounded_to_nothing_or_all(share, text):
  assert words.percent(share) == text
  assert words.percent(0.035, fine_below=10) == '3.5 %'


def test_words_agree_with_numbers():
  assert [words.counted(n, 'sample') for n in (0, 1, 2)] == ['no samples', '1 sample', '2 samples']
  assert words.share_of(0, 0) == '0 of 0'
  assert words.listed('abcdef') == 'a, b, c, d, e and 1 other'
  dataset = make(sizes={'train': 1, 'validation': 0, 'test': 400})
  texts = [a.text for a in advise(check.inspect(dataset)) if a.topic == 'small split']
  assert texts == ['There is only 1 training sample.', 'There are no validation samples.']
  dataset = make()
  for name in ('told', 'noise', 'noise_length'):
    dataset.splits['test'].features[name][4] = dataset.splits['train'].features[name][20]
  dataset.splits['test'].label[4] = dataset.splits['train'].label[20]
  text = next(a.text for a in advise(check.inspect(dataset)) if a.topic == 'leak')
  assert text.startswith('1 of 250 (0.4 %) of the test samples is also in train')


@pytest.mark.parametrize('task', OUTPUTS)
def test_the_text_fits_and_names_everything(task):
  findings = check.inspect(make(task))
  text = check.describe(findings)
  lines = text.splitlines()
  assert max(map(len, lines)) <= WIDTH <= 110
  assert lines[0].startswith('planted (synthetic data): 300 train, 200 validation, 250 test samples; to predict: ')
  assert 'a linear probe on pooled features' in ' '.join(text.split())
  for name in ('told', 'noise', 'validation', 'Identical content', 'In short'):
    assert name in text
  for line in verdict.sentences(findings):
    assert line in ' '.join(text.split())
  for found in advise(findings):
    assert found.text in ' '.join(text.split())


def test_nothing_wrong_is_said():
  dataset = make()
  for split in dataset.splits.values():
    noise = split.features['noise']
    noise[:, 0, :] = split.features['told'][:, :3] + np.random.default_rng(0).normal(size=(len(split), 3))
  assert check.describe(check.inspect(dataset)).endswith('\n\nNothing looks wrong.\n')


# The command.


@pytest.fixture
def loading(monkeypatch):
  """Replaces the loader; gives the calls it got."""
  calls = []

  def load_dataset(name, **options):
    calls.append((name, options))
    print('preparing')
    return make()

  monkeypatch.setattr(check, 'load_dataset', load_dataset)
  return calls


def test_command_reads_a_folder_or_a_name(loading, capsys):
  assert check.main(['some/dir', '--tfds_dir=here']) == 0
  assert 'In short' in capsys.readouterr().out
  assert check.main(['--name=digits', '--manual_dir', 'there']) == 0
  assert loading == [
    ('folder', {'tfds_dir': 'here', 'folder': 'some/dir'}),
    ('digits', {'tfds_dir': None, 'manual_dir': 'there'}),
  ]


def test_json_is_nothing_but_json(loading, capsys):
  assert check.main(['dir', '--json']) == 0
  out, err = capsys.readouterr()
  found = json.loads(out)
  assert err == 'preparing\n'
  assert found['sizes'] == SIZES
  assert found['probes']['modalities']['told']['order_low'] is None
  assert found['modalities'][1]['lengths']['train']['longest'] == 3
  assert found['advice'][0]['topic'] == 'no signal'


@pytest.mark.parametrize(
  ('arguments', 'message'),
  [
    ([], 'expected a folder of your own data, or --name=NAME of a data set; see --help'),
    (['a', '--name=digits'], 'expected a folder of your own data, or --name=NAME of a data set; see --help'),
    (['a', 'b'], "unexpected argument 'b'; expected one folder"),
    (['a', '--tfdsdir=b'], 'unknown flag --tfdsdir; did you mean --tfds_dir?'),
    (['a', '--manual_dir=b'], '--manual_dir goes with --name; your own folder holds its files itself'),
    (['--name'], 'argument --name: expected one argument; see --help'),
    (['--name=digit'], "unknown data set 'digit'; did you mean digits?"),
  ],
)
def test_wrong_commands_are_refused_in_one_line(arguments, message, capsys):
  assert check.main(arguments) == 2
  assert capsys.readouterr() == ('', f'dream_jax: {message}\n')


def test_help(capsys):
  assert check.main(['--help']) == 0
  assert capsys.readouterr().out == check.USAGE + '\n'


@pytest.mark.parametrize(
  ('error', 'code', 'message'),
  [
    (UserError('no\n  such'), 2, 'dream_jax: no such\n'),
    (
      UserError('--config.data.tfds_dir=DIR, --config.data.manual_dir=DIR, --config.data.options.fold=2'),
      2,
      'dream_jax: --tfds_dir=DIR, --manual_dir=DIR, --config.data.options.fold=2\n',  # It has no flag for the last.
    ),
    (OSError(28, 'No space left on device', '/x'), 2, 'dream_jax: No space left on device: /x; make room there'),
    (KeyboardInterrupt(), 130, '\ninterrupted\n'),
  ],
)
def test_exit_codes(error, code, message, monkeypatch, capsys):
  def fail(*_, **__):
    raise error

  monkeypatch.setattr(check, 'load_dataset', fail)
  assert check.main(['dir']) == code
  assert capsys.readouterr().err.startswith(message)
  monkeypatch.setattr(check, 'inspect', lambda _: 1 / 0)
  monkeypatch.setattr(check, 'load_dataset', lambda *_, **__: None)
  with pytest.raises(ZeroDivisionError):  # A fault of ours is no fault of the user's.
    check.main(['dir'])


def test_messages_name_the_flags_of_this_command(monkeypatch, capsys):
  def fail(*_, **__):
    raise UserError('no file in --config.data.tfds_dir=X; name its folder with --config.data.manual_dir=DIR')

  monkeypatch.setattr(check, 'load_dataset', fail)
  assert check.main(['--name=cmu_mosi']) == 2
  assert capsys.readouterr().err == 'dream_jax: no file in --tfds_dir=X; name its folder with --manual_dir=DIR\n'


def test_json_has_null_for_what_is_no_number():
  findings = dataclasses.replace(check.inspect(make()), label_range=(float('nan'), float('inf')))
  assert json.loads(check.to_json(findings))['label_range'] == [None, None]


def test_a_fault_of_the_machine_is_not_called_the_users(monkeypatch):
  def fail(*_, **__):
    raise OSError(9, 'Bad file descriptor')

  monkeypatch.setattr(check, 'load_dataset', fail)
  with pytest.raises(OSError, match='Bad file'):
    check.main(['dir'])


def test_own_folder_from_file_to_verdict(tmp_path, capsys):
  rng = np.random.default_rng(0)
  stress = rng.integers(0, 2, 400)
  eeg = rng.normal(size=(400, 6, 2)).astype(np.float32)
  pose = rng.normal(size=(400, 3)).astype(np.float32)
  pose[:, 0] += 4 * stress
  eeg[7, 0, 0] = np.nan
  data = tmp_path / 'data'
  data.mkdir()
  np.savez(data / 'all.npz', stress=stress, eeg=eeg, pose=pose)
  (data / 'dataset.toml').write_text(
    'name = "mine"\ntask = "binary"\nlabel = "stress"\nclasses = ["calm", "tense"]\n'
    'splits = { train = 0.5, validation = 0.25, test = 0.25 }\n[modalities]\neeg = "sequence"\npose = "vector"\n'
  )
  assert check.main([str(data), f'--tfds_dir={tmp_path / "tfds"}']) == 0
  text = capsys.readouterr().out
  assert 'mine (real data)' in text
  assert 'eeg holds 1 NaN or infinite value: < 0.1 % of its cells, which makes 1 of 2400 (< 0.1 %) of' in text
  assert 'tense' in text
  assert 'pose alone reaches' in text
  assert check.main([str(tmp_path / 'nothing')]) == 2
  assert 'does not exist' in capsys.readouterr().err


def test_importing_and_inspecting_needs_neither_jax_nor_tensorflow(root):
  program = (
    'import sys; sys.path.insert(0, "tests"); import small_data; from dream_jax.datacheck import check\n'
    'check.describe(check.inspect(small_data.small_dataset()))\n'
    'print(sorted({"jax", "flax", "tensorflow", "ml_collections"} & set(sys.modules)))'
  )
  done = subprocess.run([sys.executable, '-c', program], capture_output=True, text=True, cwd=root, check=True)
  assert done.stdout == '[]\n'


def test_split_selection():
  split = make().splits['train']
  some = content.select(split, split.label == 1)
  assert len(some) == (split.label == 1).sum()
  assert (some.label == 1).all()
  np.testing.assert_array_equal(some.features['told'], split.features['told'][split.label == 1])
