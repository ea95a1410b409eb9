"""Every file of a workdir that is read back, damaged in every way: the right result, or one line; silence never."""

import contextlib
import json
import re
import shutil

import jax
import numpy as np
import pytest
import small_workdirs
from small_workdirs import METHOD, config, results

from dream_jax import api
from dream_jax.errors import UserError
from dream_jax.experiments import experiment, study
from dream_jax.report import text
from dream_jax.workdir import storage


class _Killed(BaseException):  # No error.
  pass


@pytest.fixture(scope='module')
def patch():
  with small_workdirs.quick() as patch:
    yield patch


@pytest.fixture(scope='module')
def folders(patch, tmp_path_factory):
  """Of trainings and of studies: a finished one, one of another seed, one that was killed half-way."""
  where = tmp_path_factory.mktemp('workdirs')
  for kind, run in (('train', experiment.train), ('study', study.study)):
    for name, seed in (('finished', 0), ('other', 5)):
      run(config(seed=seed), str(where / kind / name))
    writes = []

    def die(path, content, *, writes=writes, write=storage.write):
      writes.append(path)
      write(path, content)
      if sum('state' in str(p) for p in writes) == 2:
        raise _Killed

    with pytest.MonkeyPatch.context() as inner:
      inner.setattr(storage, 'write', die)
      with contextlib.suppress(_Killed):
        run(config(), str(where / kind / 'half'))
    assert not list((where / kind / 'half').rglob('methods/*'))
  return where


def _train(workdir):
  experiment.train(config(), str(workdir))
  return results(workdir)


def _evaluate(workdir):
  experiment.evaluate(config(), str(workdir))
  return results(workdir)


def _study(workdir):
  study.study(config(), str(workdir))
  return results(workdir)


def _report(workdir):
  text.show(str(workdir))
  return results(workdir)


def _load(workdir):
  predictor = api.load(str(workdir))
  parts = (predictor.params, predictor.statistics.mean, predictor.statistics.std)
  return jax.tree.map(np.asarray, parts), predictor.spec, predictor.calibration, predictor.seed


_READERS = {'train': _train, 'evaluate': _evaluate, 'report': _report, 'load': _load, 'study': _study}


def _flip(path, _):
  """A digit that counts, as near to the middle as there is one; in what is not JSON a bit there."""
  data = path.read_bytes()
  middle = len(data) // 2
  text = path.suffix in ('.json', '.jsonl')
  for place in sorted(range(len(data)), key=lambda i: abs(i - middle)):
    changed = data[:place] + bytes([data[place] ^ 1]) + data[place + 1 :]
    # The last digit of a float may be one too many.
    if not text or (chr(data[place]).isdigit() and _values(changed) != _values(data)):
      path.write_bytes(changed)
      return


def _values(data):
  return [json.loads(line) for line in data.splitlines()] if data.count(b'\n{') else json.loads(data)


def _swap(path, other):
  shutil.copyfile(other, path)


_DAMAGES = {
  'flipped': _flip,
  'truncated': lambda path, _: path.write_bytes(path.read_bytes()[: path.stat().st_size // 2]),
  'emptied': lambda path, _: path.write_bytes(b''),
  'deleted': lambda path, _: path.unlink(),
  'swapped': _swap,
}

# File of a finished training -> who reads it, and has to refuse a flipped digit and the file of another run.
_OF_TRAINING = {
  'config.json': ('train', 'evaluate', 'report', 'load'),
  'spec.json': ('train', 'evaluate', 'load'),
  'spec.*.npz': ('train', 'load'),
  f'methods/{METHOD}.json': ('train', 'evaluate', 'load'),
  f'methods/{METHOD}.*.npz': ('train', 'evaluate', 'load'),
  'methods/majority.json': ('train', 'evaluate'),
  'methods/majority.*.npz': ('train', 'evaluate'),
  'results.json': ('report',),
  'metrics.jsonl': (),
  f'checkpoints/{METHOD}/best/*/sha256.json': ('evaluate', 'load'),
  f'checkpoints/{METHOD}/best/*/default/**/*': ('evaluate', 'load'),
  f'checkpoints/{METHOD}/state/**/*': (),
}
_OF_STUDY = {
  'config.json': ('report',),
  'study.jsonl': (),  # Lines of another study are of other keys.
  'runs/concat*/methods/*.json': ('study',),
  'runs/concat*/methods/*.npz': ('study',),
  'runs/majority*/methods/*': ('study',),
  'results.json': ('report',),
  'runs/concat*/metrics.jsonl': (),
  'runs/concat*/checkpoints/**/*': (),
}
# Of a training, or of a study's run, that was killed.
_OF_HALF = {
  'train': {
    'config.json': ('train',),
    'spec.json': ('train',),
    'spec.*.npz': ('train',),
    'metrics.jsonl': ('train',),
    f'checkpoints/{METHOD}/state/*/sha256.json': ('train',),
    f'checkpoints/{METHOD}/state/*/default/**/*': ('train',),
  },
  'study': {
    'config.json': (),
    'study.jsonl': (),
    'runs/concat*/metrics.jsonl': ('study',),
    'runs/concat*/checkpoints/concat/state/*/sha256.json': ('study',),
    'runs/concat*/checkpoints/concat/state/*/default/**/*': ('study',),
  },
}
_CASES = [
  *(('train/finished', files, damage) for files in _OF_TRAINING for damage in _DAMAGES),
  *(('study/finished', files, damage) for files in _OF_STUDY for damage in _DAMAGES),
  *((f'{kind}/half', files, damage) for kind, table in _OF_HALF.items() for files in table for damage in _DAMAGES),
]


def _readers(folder):
  kind, state = folder.split('/')
  if state == 'half':
    return {kind: _OF_HALF[kind]}
  return {
    name: _OF_TRAINING if kind == 'train' else _OF_STUDY for name in _READERS if (name == 'study') <= (kind == 'study')
  }


@pytest.fixture(scope='module')
def right(folders, tmp_path_factory):
  """What every reader gives of an untouched workdir; the command that finishes a half one gives the same."""
  found, where = {}, tmp_path_factory.mktemp('right')
  for kind, readers in (('train', ('train', 'evaluate', 'report', 'load')), ('study', ('study', 'report'))):
    for reader in readers:
      copy = where / f'{kind}-{reader}'
      shutil.copytree(folders / kind / 'finished', copy)
      found[kind, reader] = _READERS[reader](copy)
  return found


def _other(folders, folder, path):
  """The file of the other run in the same place: hashes and keys in names differ."""
  kind = folder.split('/')[0]
  pattern = re.sub(r'\.[0-9a-f]{16}\.', '.*.', re.sub(r'-[0-9a-f]{12}/', '-*/', path.as_posix()))
  found = sorted((folders / kind / 'other').glob(pattern))
  return found[-1] if found else None


def _harm(folders, folder, files, damage, copy):
  """Damages the last file that matches (the largest of a checkpoint's arrays); False where the other run has none."""
  shutil.copytree(folders / folder, copy)
  found = sorted(
    (p for p in copy.glob(files) if p.is_file()), key=lambda p: (p.stat().st_size if '**' in files else 0, p)
  )
  assert found, files
  path = found[-1]
  if '/state/' in files:  # The save that training goes on from.
    last = max(int(p.relative_to(copy).as_posix().split('/state/')[1].split('/')[0]) for p in found)
    path = [p for p in found if f'/state/{last}/' in p.as_posix()][-1]
  other = _other(folders, folder, path.relative_to(copy))
  if damage == 'swapped' and (other is None or other.read_bytes() == path.read_bytes()):
    return False
  _DAMAGES[damage](path, other)
  return True


def _attempt(reader, workdir):
  """(result, None) or (None, message)."""
  try:
    return _READERS[reader](workdir), None
  except UserError as error:
    return None, str(error)


def _same(a, b):
  if jax.tree.structure(a) != jax.tree.structure(b):
    return False
  return all(np.array_equal(x, y) for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True))


@pytest.mark.parametrize(('folder', 'files', 'damage'), _CASES)
def test_damage_is_told_or_does_not_matter(folders, right, tmp_path, folder, files, damage):
  kind = folder.split('/')[0]
  for reader, table in _readers(folder).items():
    if (kind, reader) not in right:
      continue
    copy = tmp_path / reader
    if not _harm(folders, folder, files, damage, copy):
      return
    before = {p: p.read_bytes() for p in copy.rglob('*') if p.is_file()}
    found, said = _attempt(reader, copy)
    if said is not None:
      assert '\n' not in said
      assert ';' in said  # What was found; what to do.
      assert str(copy) in said
      after = {p: p.read_bytes() for p in copy.rglob('*') if p.is_file() and p.name != '.lock'}
      assert {p: before[p] for p in before if p.name != '.lock'} == after
    else:
      assert _same(found, right[kind, reader]), reader
      assert not (damage in ('flipped', 'swapped') and reader in table[files]), f'{reader} believes it'


def _copy_over(source, target):
  shutil.rmtree(target)
  shutil.copytree(source, target)


@pytest.mark.parametrize('reader', ['evaluate', 'load', 'train'])
def test_checkpoints_of_another_run_with_equal_shapes_are_refused(folders, tmp_path, reader):
  state, kind = ('half', 'state') if reader == 'train' else ('finished', 'best')
  copy = tmp_path / 'run'
  shutil.copytree(folders / 'train' / state, copy)
  place = f'checkpoints/{METHOD}/{kind}'
  _copy_over(folders / 'train' / 'other' / place, copy / place)
  found, said = _attempt(reader, copy)
  assert found is None
  assert f'{place}/' in said
  assert 'belongs to another run' in said


def test_checkpoints_of_another_method_of_the_run_are_refused(patch, folders, tmp_path):
  controls = ('majority', f'{METHOD}[optimizer.learning_rate=0.01]')
  experiment.train(config(controls=controls), str(tmp_path / 'run'))
  one, two = sorted((tmp_path / 'run' / 'checkpoints').iterdir())
  _copy_over(two / 'best', one / 'best')
  with pytest.raises(UserError, match=rf'{METHOD}/best/.* belongs to another run'):
    api.load(str(tmp_path / 'run'))
  # A workdir without a config, too, has an owner: nothing of it is taken, and nothing written.
  (tmp_path / 'run' / 'config.json').unlink()
  (tmp_path / 'run' / 'spec.json').unlink()
  (tmp_path / 'run' / 'results.json').unlink()
  with pytest.raises(UserError, match=r'methods/.*\.json belongs to another run .*; choose another --workdir'):
    experiment.train(config(seed=3), str(tmp_path / 'run'))
  assert not (tmp_path / 'run' / 'config.json').exists()


@pytest.mark.parametrize('left', ['checkpoints', 'metrics.jsonl'])
def test_what_another_run_left_without_a_config_is_refused_before_anything_is_written(folders, tmp_path, left):
  copy, source = tmp_path / 'run', folders / 'train' / 'other' / left
  copy.mkdir()
  (shutil.copytree if source.is_dir() else shutil.copy)(source, copy / left)
  before = sorted(copy.rglob('*'))
  found, said = _attempt('train', copy)
  assert found is None
  assert 'belongs to another run' in said
  assert said.endswith('choose another --workdir')
  assert [path for path in sorted(copy.rglob('*')) if path.name != '.lock'] == before


def test_saves_without_seals_or_config_belong_to_nobody(folders, tmp_path):
  copy = tmp_path / 'run'
  shutil.copytree(folders / 'train' / 'half' / 'checkpoints', copy / 'checkpoints')
  (seal, *_) = copy.glob('checkpoints/*/state/*/sha256.json')
  seal.unlink()
  found, said = _attempt('train', copy)
  assert found is None
  assert said == f'checkpoint {seal.parent} has no seal that says whose it is; choose another --workdir'
  assert not (copy / 'config.json').exists()


def test_a_log_that_lacks_lines_gives_no_facts_about_gradients(folders, tmp_path):
  copy = tmp_path / 'study'
  shutil.copytree(folders / 'study' / 'half', copy)
  (path,) = copy.glob(f'runs/{METHOD}*/metrics.jsonl')
  lines = path.read_bytes().splitlines(keepends=True)
  path.write_bytes(b''.join(lines[1:]))
  with pytest.raises(UserError, match=r'metrics\.jsonl lacks steps of the training; remove .*: its run is made again'):
    _study(copy)
  shutil.rmtree(path.parent)
  assert _study(copy)['methods'][METHOD]['gradient_steps']


@pytest.mark.parametrize('name', ['config.json', 'methods/concat.json', 'spec.json'])
def test_a_workdir_of_an_earlier_version_is_refused_in_one_line(folders, tmp_path, name):
  copy = tmp_path / 'run'
  shutil.copytree(folders / 'train' / 'finished', copy)
  content = json.loads((copy / name).read_text())
  del content['seal']
  (copy / name).write_text(json.dumps(content))
  for reader in ('train', 'evaluate', 'load'):
    found, said = _attempt(reader, copy)
    assert found is None
    assert 'has no seal: an earlier version of this program wrote it, or it is damaged; ' in said


def test_a_study_whose_ledger_is_gone_says_what_to_do(folders, right, tmp_path):
  copy = tmp_path / 'study'
  shutil.copytree(folders / 'study' / 'finished', copy)
  (copy / 'study.jsonl').unlink()
  with pytest.raises(UserError, match=r'holds a study whose study\.jsonl is gone; .* remove config\.json'):
    _study(copy)
  (copy / 'config.json').unlink()
  assert _same(_study(copy), right['study', 'study'])


def test_a_damaged_choice_is_made_again_from_the_state_as_its_message_says(folders, right, tmp_path):
  copy = tmp_path / 'run'
  shutil.copytree(folders / 'train' / 'finished', copy)
  _flip(max((p for p in copy.glob(f'checkpoints/{METHOD}/best/*/default/**/*') if p.is_file()), key=_size), None)
  said = _attempt('load', copy)[1]
  assert 'remove that folder and the file of the method in methods/, and run the command that trained it again' in said
  (copy / 'methods' / f'{METHOD}.json').unlink()
  assert _same(_train(copy), right['train', 'train'])
  assert _same(_load(copy), right['train', 'load'])


def _size(path):
  return path.stat().st_size
