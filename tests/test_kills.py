"""Killed between any two writes, the same command goes on and leaves what an undisturbed one does."""

import contextlib
import functools
import re
import shutil

import pytest
import small_workdirs
from small_workdirs import METHOD, results

from dream_jax.errors import UserError
from dream_jax.experiments import experiment
from dream_jax.report.results import read_results
from dream_jax.workdir import method_files, storage
from dream_jax.workdir.checkpoints import Checkpoints

config = functools.partial(small_workdirs.config, train__num_evals=2)


class _Killed(BaseException):  # No error.
  pass


@pytest.fixture(scope='module')
def patch():
  with small_workdirs.quick() as patch:
    yield patch


def _killed_at(number, command):
  """Runs it up to its write of this number; whether it came so far."""
  count = iter(range(10_000))

  def stop_before(do):
    def stopping(*arguments, **rest):
      if next(count) == number:
        raise _Killed
      return do(*arguments, **rest)

    return stopping

  with pytest.MonkeyPatch.context() as inner:
    for place, name in ((storage, 'write'), (storage, 'remove_folder')):
      inner.setattr(place, name, stop_before(getattr(place, name)))
    # A process that is dead closes nothing.
    inner.setattr(Checkpoints, '__exit__', _leave)
    try:
      command()
    except _Killed:
      return True
  return False


def _leave(checkpoints, kind, *_):
  if kind is _Killed:
    for manager in checkpoints._managers.values():
      manager.wait_until_finished()
  else:
    checkpoints.close()


def _files(workdir):
  """Names and contents of what holds no clock's seconds; of checkpoints which are there."""
  found = {}
  for path in workdir.rglob('*'):
    name = path.relative_to(workdir).as_posix()
    if path.is_file() and not re.search(r'tensorboard|report.html|checkpoints/', name):
      timed = path.name not in ('config.json', 'spec.json', 'metrics.jsonl') and path.suffix in ('.json', '.jsonl')
      found[name] = None if timed else path.read_bytes()
    elif path.name == 'sha256.json':
      found[name] = None
  return found


@pytest.mark.parametrize('run', [experiment.train, experiment.study])
def test_killed_between_any_two_writes_it_goes_on(patch, tmp_path, run):
  whole = tmp_path / 'whole'
  run(config(), str(whole))
  for number in range(1000):
    workdir = tmp_path / f'{number}'
    if not _killed_at(number, lambda workdir=workdir: run(config(), str(workdir))):
      break
    run(config(), str(workdir))
    assert results(workdir) == results(whole), number
    assert _files(workdir) == _files(whole), number
  assert number > 10


def test_killed_twice_in_one_place_it_goes_on(patch, tmp_path):
  run = lambda: experiment.train(config(), str(tmp_path / 'run'))  # noqa: E731
  experiment.train(config(), str(tmp_path / 'whole'))
  places = [n for n in (4, 0, 1, 2, 3, 5) if _killed_at(n, run)]
  assert len(places) > 3
  run()
  assert results(tmp_path / 'run') == results(tmp_path / 'whole')


_WIDER = {'protocols': ('modality/zeros', 'subset/noise')}


def test_an_evaluation_killed_between_two_methods_leaves_no_mixture(patch, tmp_path):
  whole, evaluated = tmp_path / 'whole', tmp_path / 'evaluated'
  experiment.train(config(), str(whole))
  shutil.copytree(whole, evaluated)
  experiment.evaluate(config(**_WIDER), str(evaluated))
  assert list(results(evaluated)['methods'][METHOD]['protocols']) == ['complete', 'modality/zeros', 'subset/noise']
  number = 0
  while True:
    workdir = tmp_path / f'{number}'
    shutil.copytree(whole, workdir)
    if not _killed_at(number, lambda workdir=workdir: experiment.evaluate(config(**_WIDER), str(workdir))):
      break
    other = tmp_path / f'{number}-trained'
    shutil.copytree(workdir, other)
    experiment.evaluate(config(**_WIDER), str(workdir))
    assert results(workdir) == results(evaluated), number
    # Training reports what its own config asks for.
    experiment.train(config(), str(other))
    assert results(other) == results(whole), number
    number += 1
  assert number >= 5
  experiment.train(config(), str(evaluated))
  assert results(evaluated) == results(whole)


def test_a_study_whose_next_command_was_killed_says_so(patch, tmp_path):
  workdir = tmp_path / 'study'
  experiment.study(config(), str(workdir))
  before = read_results(workdir)
  other = config(study__methods=('majority', 'late'))
  # What is done anew is found by itself: its config is written, its results are not.
  assert _killed_at(1, lambda: experiment.study(other, str(workdir)))
  with pytest.raises(UserError, match=r'results of an earlier command: .*not finished; run its command again to go on'):
    read_results(workdir)
  experiment.study(config(), str(workdir))
  assert small_workdirs.without_times(read_results(workdir)) == small_workdirs.without_times(before)
  # How it is executed is no other study.
  assert _killed_at(1, lambda: experiment.study(config(train__checkpoint_seconds=9.0), str(workdir)))
  read_results(workdir)


def test_arrays_that_nothing_names_go_with_the_next_write(tmp_path):
  with contextlib.suppress(_Killed):
    _killed_at(1, lambda: method_files.write_method(str(tmp_path), 'a', {}, []))
  assert len(list((tmp_path / 'methods').iterdir())) == 1
  (tmp_path / 'methods' / 'a.0123456789abcdef.npz').write_bytes(b'')
  (tmp_path / 'methods' / 'a.b.0123456789abcdef.npz').write_bytes(b'')  # Of another method.
  method_files.write_method(str(tmp_path), 'a', {}, [])
  assert len(list((tmp_path / 'methods').glob('a.*.npz'))) == 2
  assert method_files.read_method(str(tmp_path), 'a').rows == []


def test_killed_while_it_removes_what_a_finished_run_needs_no_more(patch, tmp_path):
  experiment.study(config(), str(tmp_path / 'whole'))

  def remove_a_part(folder):
    for path in sorted(p for p in (tmp_path / 'killed').rglob('state/*/default/*') if p.is_file())[-1:]:
      path.unlink()
    raise _Killed

  with pytest.MonkeyPatch.context() as inner:
    inner.setattr(storage, 'remove_folder', remove_a_part)
    with pytest.raises(_Killed):
      experiment.study(config(), str(tmp_path / 'killed'))
  assert list((tmp_path / 'killed').rglob('state'))
  experiment.study(config(), str(tmp_path / 'killed'))
  assert not list((tmp_path / 'killed').rglob('state'))
  assert results(tmp_path / 'killed') == results(tmp_path / 'whole')
