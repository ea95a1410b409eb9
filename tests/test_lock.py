"""One command at a time works in a workdir: the second is refused at once, whatever the first does."""

import os
import signal
import subprocess
import sys
import textwrap

import pytest
import small_workdirs
from small_workdirs import config

from dream_jax.errors import UserError
from dream_jax.experiments import experiment
from dream_jax.workdir import storage

_HOLD = """
  import sys
  from dream_jax.workdir import storage
  with storage.lock(sys.argv[1]):
    print('held', flush=True)
    sys.stdin.read()
"""


@pytest.fixture
def holder(root, tmp_path):
  """(folder, process that is at work there)."""
  folder = tmp_path / 'deep' / 'run'
  process = subprocess.Popen(
    [sys.executable, '-c', textwrap.dedent(_HOLD), str(folder)],
    stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=root,
  )  # fmt: skip
  assert process.stdout.readline() == 'held\n'
  yield folder, process
  process.kill()
  process.communicate()


@pytest.mark.parametrize('how', [None, signal.SIGSTOP])
def test_a_second_process_is_refused_at_once_and_changes_nothing(holder, how):
  folder, process = holder
  if how:
    process.send_signal(how)
  (folder / 'config.json').write_text('{}')
  for run in (experiment.train, experiment.evaluate, experiment.study):
    with pytest.raises(UserError, match=rf'another process is at work in {folder}; wait for it, stop it or choose'):
      run(config(), str(folder))
  assert sorted(path.name for path in folder.iterdir()) == ['.lock', 'config.json']


def test_the_dead_hold_no_lock(holder):
  folder, process = holder
  process.kill()
  process.wait()
  with storage.lock(folder):
    pass
  assert (folder.parent / 'run').exists()  # Others made it.


def test_a_folder_that_stays_empty_goes_again(tmp_path):
  with pytest.raises(UserError, match='a mistake'), storage.lock(tmp_path / 'a' / 'b'):
    raise UserError('a mistake')
  assert not list(tmp_path.iterdir())
  with storage.lock(tmp_path / 'a'), pytest.raises(UserError, match='at work'), storage.lock(tmp_path / 'a'):
    pass
  with storage.lock(tmp_path / 'a'):
    (tmp_path / 'a' / 'mine').touch()
  assert sorted(p.name for p in (tmp_path / 'a').iterdir()) == ['.lock', 'mine']


def test_what_a_killed_process_had_half_written_goes(holder, tmp_path):
  _, process = holder
  dead = subprocess.Popen([sys.executable, '-c', ''])
  dead.wait()
  deep, other = tmp_path / 'a' / 'state' / '8', tmp_path / 'a' / 'other'
  for folder in (deep, other):
    folder.mkdir(parents=True)
  (other / '.lock').touch()
  kept = [deep / f'.sha256.json.tmp-{process.pid}', other / f'.x.tmp-{dead.pid}', deep / 'x.tmp-1', deep / '.x.tmp-y']
  gone = [deep / f'.sha256.json.tmp-{dead.pid}', tmp_path / 'a' / f'.x.tmp-{os.getpid()}', deep / f'.x.tmp-{10**30}']
  for path in (*kept, *gone):
    path.touch()
  with storage.lock(tmp_path / 'a'):
    assert [path.exists() for path in (*kept, *gone)] == [True] * 4 + [False] * 3


def test_a_lock_that_was_removed_by_its_last_owner_is_no_lock(tmp_path, monkeypatch):
  """Who opened the file before it was removed would be alone with a file that nobody else can see."""
  flock, stolen = storage.fcntl.flock, []

  def remove_first(file, how):
    flock(file, how)
    if not stolen:
      stolen.append((tmp_path / '.lock').unlink())

  monkeypatch.setattr(storage.fcntl, 'flock', remove_first)
  with storage.lock(tmp_path):
    monkeypatch.undo()
    with pytest.raises(UserError, match='at work'), storage.lock(tmp_path):
      pass


def test_a_file_system_without_locks_is_said_and_used(tmp_path, monkeypatch, capsys):
  def flock(*_):
    raise OSError(storage.errno.ENOLCK, 'No locks available')

  monkeypatch.setattr(storage.fcntl, 'flock', flock)
  left = tmp_path / f'.x.tmp-{os.getpid()}'
  left.touch()
  with storage.lock(tmp_path):
    (tmp_path / 'mine').touch()
  assert left.exists()  # Somebody on another machine may be writing it.
  assert f'{tmp_path} cannot be locked (No locks available): start no second process there' in capsys.readouterr().out


def test_a_mistake_leaves_no_folder_and_a_run_leaves_its_lock(tmp_path):
  with small_workdirs.quick():
    with pytest.raises(UserError, match='modality/ones'):
      experiment.train(config(protocols=('modality/ones',)), str(tmp_path / 'run'))
    assert not (tmp_path / 'run').exists()
    for _ in range(2):
      experiment.train(config(model__name='majority', controls=()), str(tmp_path / 'run'))
  assert (tmp_path / 'run' / '.lock').exists()
