"""Every file of a workdir that is read back, damaged in every way: the right result, or one line; silence never."""

import contextlib
import json
import re
import shutil

import jax
import numpy as np
import pytest
import small_workdirs
from run_places import run_folder
from small_workdirs import METHOD, config, results

from dream_jax import api
from dream_jax.errors import UserError
from dream_jax.experiments import experiment
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
  """Of trainings and of studies: a finished one and one that was killed half-way, each also of another seed."""
  where = tmp_path_factory.mktemp('workdirs')
  for kind, run in (('train', experiment.train), ('study', experiment.study)):
    for name, seed in (('finished', 0), ('other', 5)):
      run(config(seed=seed), str(where / kind / name))
    for name, seed in (('half', 0), ('other-half', 5)):
      _kill(lambda run=run, seed=seed, folder=where / kind / name: run(config(seed=seed), str(folder)))
      assert not list((where / kind / name).rglob('methods/*'))
  return where


def _kill(command):
  """Runs it up to its second checkpoint."""
  writes = []

  def die(path, content, *, write=storage.write):
    writes.append(path)
    write(path, content)
    if sum('state' in str(p) for p in writes) == 2:
      raise _Killed

  with pytest.MonkeyPatch.context() as inner:
    inner.setattr(storage, 'write', die)
    with contextlib.suppress(_Killed):
      command()


def _train(workdir):
  experiment.train(config(), str(workdir))
  return results(workdir)


def _evaluate(workdir):
  experiment.evaluate(config(), str(workdir))
  return results(workdir)


def _study(workdir):
  experiment.study(config(), str(workdir))
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

# File of a finished workdir -> who reads it, and has to refuse a flipped digit and the file of another run.
_RUN = f'runs/{METHOD}*'
_FINISHED = {
  'config.json': ('train', 'evaluate', 'report'),  # Results name what is loaded; a study takes any.
  f'{_RUN}/spec.json': ('load',),
  f'{_RUN}/spec.*.npz': ('load',),
  f'{_RUN}/methods/{METHOD}.json': ('MODE', 'evaluate', 'load'),
  f'{_RUN}/methods/{METHOD}.*.npz': ('MODE', 'evaluate', 'load'),
  'runs/majority*/methods/majority.json': ('MODE', 'evaluate'),
  'runs/majority*/methods/majority.*.npz': ('MODE', 'evaluate'),
  'results.json': ('report', 'evaluate', 'load'),
  f'{_RUN}/metrics.jsonl': (),
  f'{_RUN}/checkpoints/{METHOD}/best/*/sha256.json': ('evaluate', 'load'),
  f'{_RUN}/checkpoints/{METHOD}/best/*/default/**/*': ('evaluate', 'load'),
}
# Of one that was killed: who goes on, and reads them.
_HALF = {
  'config.json': True,
  f'{_RUN}/spec.json': True,
  f'{_RUN}/spec.*.npz': True,
  f'{_RUN}/metrics.jsonl': True,
  f'{_RUN}/checkpoints/{METHOD}/state/*/sha256.json': True,
  f'{_RUN}/checkpoints/{METHOD}/state/*/default/**/*': True,
}
_MODES = ('train', 'study')
_CASES = [
  (f'{mode}/{state}', files, damage)
  for mode in _MODES
  for state, table in (('finished', _FINISHED), ('half', _HALF))
  for files in table
  for damage in _DAMAGES
]


def _readers(folder):
  """Who reads a workdir -> the files of which it has to notice any damage."""
  mode, state = folder.split('/')
  if state == 'half':
    return {mode: set(_HALF) - ({'config.json'} if mode == 'study' else set())}
  readers = ('train', 'evaluate', 'report', 'load') if mode == 'train' else ('study', 'report', 'load')
  return {
    name: {files for files, who in _FINISHED.items() if name in who or (name == mode and 'MODE' in who)}
    for name in readers
  }


@pytest.fixture(scope='module')
def right(folders, tmp_path_factory):
  """What every reader gives of an untouched workdir; the command that finishes a half one gives the same."""
  found, where = {}, tmp_path_factory.mktemp('right')
  for kind, readers in (('train', ('train', 'evaluate', 'report', 'load')), ('study', ('study', 'report', 'load'))):
    for reader in readers:
      copy = where / f'{kind}-{reader}'
      shutil.copytree(folders / kind / 'finished', copy)
      found[kind, reader] = _READERS[reader](copy)
  return found


def _other(folders, folder, path):
  """The file of the other run in the same place: hashes and keys in names differ."""
  kind, state = folder.split('/')
  pattern = re.sub(r'\.[0-9a-f]{16}\.', '.*.', re.sub(r'-[0-9a-f]{12}/', '-*/', path.as_posix()))
  found = sorted((folders / kind / ('other' if state == 'finished' else 'other-half')).glob(pattern))
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
      assert not (damage in ('flipped', 'swapped') and files in table), f'{reader} believes it'


def _copy_over(source, target):
  shutil.rmtree(target)
  shutil.copytree(source, target)


@pytest.mark.parametrize('reader', ['evaluate', 'load', 'train', 'study'])
def test_checkpoints_of_another_run_with_equal_shapes_are_refused(folders, tmp_path, reader):
  state, other, kind = ('half', 'other-half', 'state') if reader in _MODES else ('finished', 'other', 'best')
  copy, mode = tmp_path / 'run', reader if reader in _MODES else 'train'
  shutil.copytree(folders / mode / state, copy)
  place = f'checkpoints/{METHOD}/{kind}'
  _copy_over(run_folder(folders / mode / other, METHOD) / place, run_folder(copy, METHOD) / place)
  found, said = _attempt(reader, copy)
  assert found is None
  assert f'{place}/' in said
  assert 'belongs to another run' in said


def test_checkpoints_of_another_method_of_the_run_are_refused(patch, folders, tmp_path):
  other = f'{METHOD}[optimizer.learning_rate=0.01]'
  experiment.train(config(controls=('majority', other)), str(tmp_path / 'run'))
  (there,) = (tmp_path / 'run').glob(f'runs/{METHOD}(*/checkpoints/*/best')
  _copy_over(there, run_folder(tmp_path / 'run', METHOD) / 'checkpoints' / METHOD / 'best')
  with pytest.raises(UserError, match=rf'{METHOD}/best/.* belongs to another run'):
    api.load(str(tmp_path / 'run'))


def test_results_whose_config_is_gone_are_not_overwritten(folders, tmp_path):
  copy = tmp_path / 'run'
  shutil.copytree(folders / 'train' / 'other', copy)
  (copy / 'config.json').unlink()
  before = {path: path.read_bytes() for path in copy.rglob('*') if path.is_file() and path.name != '.lock'}
  found, said = _attempt('train', copy)
  assert found is None
  assert said.endswith(
    'results.json belongs to another run (another config, other seeds or other data); choose another --workdir'
  )
  assert {p: p.read_bytes() for p in copy.rglob('*') if p.is_file() and p.name != '.lock'} == before


def test_runs_whose_config_is_gone_are_found_by_what_decides_them(folders, right, tmp_path):
  copy = tmp_path / 'run'
  shutil.copytree(folders / 'train' / 'finished', copy)
  for name in ('config.json', 'results.json'):
    (copy / name).unlink()
  shutil.copytree(run_folder(folders / 'train' / 'other', METHOD), copy / 'runs' / 'other')
  assert _same(_train(copy), right['train', 'train'])


def test_saves_without_seals_belong_to_nobody(folders, tmp_path):
  copy = tmp_path / 'run'
  shutil.copytree(folders / 'train' / 'half', copy)
  for seal in copy.glob('runs/*/checkpoints/*/state/*/sha256.json'):
    seal.unlink()
  found, said = _attempt('train', copy)
  if found is None:
    assert 'has no seal' in said
  else:  # Nothing that is not finished is gone on from.
    assert found == results(folders / 'train' / 'finished')


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


@pytest.mark.parametrize('name', ['config.json', 'runs/concat*/methods/concat.json', 'runs/concat*/spec.json'])
def test_a_file_of_an_earlier_version_is_refused_in_one_line(folders, tmp_path, name):
  copy = tmp_path / 'run'
  shutil.copytree(folders / 'train' / 'finished', copy)
  (path,) = copy.glob(name)
  content = json.loads(path.read_text())
  del content['seal']
  path.write_text(json.dumps(content))
  readers = {'config.json': ('train', 'evaluate'), 'runs/concat*/spec.json': ('load',)}
  for reader in readers.get(name, ('train', 'evaluate', 'load')):
    found, said = _attempt(reader, copy)
    assert found is None
    assert 'has no seal: an earlier version of this program wrote it, or it is damaged; ' in said


def test_a_damaged_run_is_made_again_as_its_message_says(folders, right, tmp_path):
  copy = tmp_path / 'run'
  shutil.copytree(folders / 'train' / 'finished', copy)
  _flip(max((p for p in copy.glob(f'{_RUN}/checkpoints/{METHOD}/best/*/default/**/*') if p.is_file()), key=_size), None)
  assert 'remove the folder of that run in runs/ and run the command of the workdir again' in _attempt('load', copy)[1]
  shutil.rmtree(run_folder(copy, METHOD))
  assert _same(_train(copy), right['train', 'train'])
  assert _same(_load(copy), right['train', 'load'])


def test_a_model_is_the_one_that_results_speak_of(folders, patch, tmp_path):
  """Whatever has been trained since, and that nothing names one is said."""
  copy = tmp_path / 'study'
  shutil.copytree(folders / 'study' / 'finished', copy)
  before = _load(copy)
  shutil.copytree(run_folder(folders / 'study' / 'other', METHOD), copy / 'runs' / f'{METHOD}@complete-other')
  assert _same(_load(copy), before)
  (copy / 'results.json').unlink()
  found, said = _attempt('load', copy)
  assert found is None
  assert f'holds 2 finished runs of {METHOD}' in said
  assert said.endswith('run the command of this workdir again: its results will')


def _size(path):
  return path.stat().st_size
