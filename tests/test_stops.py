"""Ctrl-C, a full disk, a damaged cache: what is stopped loses nothing, says one line and goes on to the same bits."""

import json
import os
import re
import signal
import subprocess
import sys
import textwrap
import time

import compile_cache
import jax
import numpy as np
import pytest
from small_runs import optax_promotes, small_prepared, small_recipe, small_trainer  # noqa: F401

from dream_jax.errors import Interrupted, Preempted
from dream_jax.machine import exit_codes, interrupts
from dream_jax.parallel import hosts
from dream_jax.training import train
from dream_jax.workdir import storage
from dream_jax.workdir.checkpoints import Checkpoints
from dream_jax.workdir.events import Events

_METHOD = 'concat+dropout'
_CALLS = 6


@pytest.fixture(scope='module')
def made():
  """A compiled trainer: 12 steps in calls of 2, validation every 4, a checkpoint after every call."""
  recipe = small_recipe(mesh__seed=2, train__checkpoint_seconds=0.0)
  return small_trainer(_METHOD, recipe, small_prepared('multiclass', ('face', 'pose')))


@pytest.fixture(scope='module')
def whole(made, tmp_path_factory):
  """(workdir, result) of a run nobody disturbed."""
  workdir = tmp_path_factory.mktemp('whole')
  return workdir, made.run(str(workdir))


@pytest.fixture
def trainer(made, monkeypatch):
  """The same, and what is patched on it is taken back."""
  monkeypatch.setattr(made, 'batches', made.batches)
  return made


@pytest.fixture
def started():
  """This process listens to signals as a command does."""
  before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
  hosts.start(None)
  yield
  hosts.start(None)  # Forgets what was heard.
  for number, handler in before.items():
    signal.signal(number, handler)


def _before_call(trainer, monkeypatch, call, happens):
  """Something happens while a call is being made ready."""
  batches = type(trainer).batches

  def disturbed(start_step):
    for number, batch in enumerate(batches(trainer, start_step), start_step // trainer.schedule.per_call + 1):
      if number == call:
        happens()
      yield batch

  monkeypatch.setattr(trainer, 'batches', disturbed)


def _state(workdir, trainer):
  with Checkpoints(workdir / 'checkpoints' / _METHOD, read_only=True) as checkpoints:
    return checkpoints.restore_latest(trainer.programs.abstract_state)


def _assert_same(a, b, trainer):
  """Bit for bit: what was trained, what was selected and what was logged."""
  jax.tree.map(np.testing.assert_array_equal, _state(a, trainer), _state(b, trainer))
  assert (a / 'metrics.jsonl').read_bytes() == (b / 'metrics.jsonl').read_bytes()


# The first, one with a reading, one between two of them, and the last.
@pytest.mark.parametrize('call', [1, 2, 3, _CALLS])
def test_interrupted_at_any_call_it_saves_and_goes_on_to_the_same_bits(
  trainer, whole, started, tmp_path, monkeypatch, call
):
  del started
  with monkeypatch.context() as patch:
    _before_call(trainer, patch, call, lambda: signal.raise_signal(signal.SIGINT))
    with pytest.raises(Interrupted, match=f'^interrupted: {re.escape(_METHOD)} saved at step {2 * call} of 12$'):
      trainer.run(str(tmp_path))
  assert _state(tmp_path, trainer)[0] == 2 * call
  hosts.start(None)
  result = trainer.run(str(tmp_path))
  jax.tree.map(np.testing.assert_array_equal, result.best, whole[1].best)
  _assert_same(tmp_path, whole[0], trainer)


def test_sigterm_is_told_by_its_name(trainer, started, tmp_path, monkeypatch):
  del started
  _before_call(trainer, monkeypatch, 3, lambda: signal.raise_signal(signal.SIGTERM))
  with pytest.raises(Preempted, match=f'^SIGTERM: {re.escape(_METHOD)} saved at step 6 of 12$') as caught:
    trainer.run(str(tmp_path))
  assert not isinstance(caught.value, Interrupted)


def test_a_second_interrupt_does_not_wait(trainer, started, tmp_path, monkeypatch):
  del started

  def twice():
    signal.raise_signal(signal.SIGINT)
    signal.raise_signal(signal.SIGINT)

  _before_call(trainer, monkeypatch, 3, twice)
  with pytest.raises(KeyboardInterrupt):
    trainer.run(str(tmp_path))
  assert _state(tmp_path, trainer)[0] == 4


def test_where_nothing_is_to_be_saved_an_interrupt_does_what_it_always_did(started):
  del started
  with pytest.raises(KeyboardInterrupt):
    signal.raise_signal(signal.SIGINT)


def test_what_a_shell_wants_ignored_stays_ignored(started):
  del started
  signal.signal(signal.SIGINT, signal.SIG_IGN)
  hosts.start(None)
  interrupts.end_at_interrupt()
  assert signal.getsignal(signal.SIGINT) == signal.SIG_IGN


@pytest.mark.parametrize(('stop', 'code'), [(Interrupted('interrupted: saved'), 130), (Preempted('SIGTERM: saved'), 0)])
def test_who_interrupts_gets_another_code_than_who_preempts(stop, code, capsys):
  def stopped():
    raise stop

  assert exit_codes.exit_code(stopped, writes_to='--workdir', after_interrupt='; go on') == code
  assert ''.join(capsys.readouterr()) == f'{stop}; go on\n'


# After a save between readings and after one with a reading.
@pytest.mark.parametrize('call', [2, 5])
def test_killed_between_readings_it_goes_on_from_the_last_call(trainer, whole, tmp_path, monkeypatch, call):
  def die():
    raise RuntimeError('killed')

  with monkeypatch.context() as patch:
    _before_call(trainer, patch, call, die)
    with pytest.raises(RuntimeError, match='killed'):
      trainer.run(str(tmp_path))
  assert _state(tmp_path, trainer)[0] == 2 * (call - 1)
  trainer.run(str(tmp_path))
  _assert_same(tmp_path, whole[0], trainer)


def test_alone_the_clock_is_read_at_every_call(monkeypatch):
  now = [0.0]
  monkeypatch.setattr(train.time, 'monotonic', lambda: now[0])
  pace = train._Pace(10.0)
  for now[0] in (1.0, 9.9):
    assert not pace.due()
  now[0] = 10.0
  assert pace.due()


def test_several_processes_ask_each_other_seldom_and_in_time(monkeypatch):
  now, asked = [0.0], []
  monkeypatch.setattr(train.time, 'monotonic', lambda: now[0])
  monkeypatch.setattr(hosts, 'several', lambda: True)
  monkeypatch.setattr(hosts, 'agree', lambda decide: asked.append(now[0]) or json.loads(json.dumps(decide())))
  pace, calls = train._Pace(20.0), 0
  while not pace.due():
    calls += 1
    now[0] += 0.01
  assert now[0] < 20.1
  assert len(asked) < 20 < calls
  assert train._Pace(0.0).due()


_START = """
  import os, signal, sys, time
  from dream_jax.machine import interrupts
  interrupts.end_at_interrupt('; go on')
  from dream_jax.parallel import hosts
  hosts.start(None)
"""


def _python(code, *arguments, **options):
  environment = {**os.environ, 'JAX_PLATFORMS': 'cpu'}
  return subprocess.run(
    [sys.executable, '-c', textwrap.dedent(code), *map(str, arguments)],
    capture_output=True, text=True, timeout=120, check=False, env=environment, **options,
  )  # fmt: skip


_IMPORT = """
  import importlib.abc, os, runpy, signal, sys

  class Interrupted(importlib.abc.MetaPathFinder):
    def find_spec(self, name, *_):
      if name == sys.argv[2]:
        os.kill(os.getpid(), signal.SIGINT)

  sys.meta_path.insert(0, Interrupted())
  runpy.run_module(sys.argv[1], run_name='__main__', alter_sys=False)
"""


@pytest.mark.parametrize(
  ('module', 'imported', 'said'),
  [
    ('dream_jax.main', 'absl', '; the same command continues where it stopped'),
    ('dream_jax.datacheck', 'dream_jax.machine.exit_codes', ''),
    ('dream_jax.data.check', 'dream_jax.datacheck.check', ''),
  ],
)
def test_an_interrupt_while_python_imports_is_told_in_one_line(module, imported, said):
  done = _python(_IMPORT, module, imported)
  assert (done.returncode, done.stderr) == (130, f'\ninterrupted{said}\n')


def test_a_command_that_has_nothing_to_save_ends_in_one_line():
  done = _python(_START + '  os.kill(os.getpid(), signal.SIGINT)\n  time.sleep(60)\n')
  assert (done.returncode, done.stderr) == (130, '\ninterrupted; go on\n')


def test_a_command_that_listens_ends_at_the_second_interrupt():
  code = """
  with hosts.listening():
    os.kill(os.getpid(), signal.SIGINT)
    print(hosts.stopping(), flush=True)
    os.kill(os.getpid(), signal.SIGINT)
    time.sleep(60)
  """
  done = _python(_START + code)
  assert (done.returncode, done.stdout, done.stderr) == (130, 'True\n', '\ninterrupted; go on\n')


_SAVE = """
  import resource, sys
  import jax.numpy as jnp
  from dream_jax.workdir.checkpoints import Checkpoints
  from dream_jax.machine.exit_codes import exit_code

  def save():
    with Checkpoints(sys.argv[1]) as checkpoints:
      for step in range(1, 4):
        checkpoints.save(step, {str(i): jnp.arange(3000.0) + step for i in range(40)})

  resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000))
  sys.exit(exit_code(save, writes_to='--workdir'))
"""


def test_a_disk_that_refuses_a_checkpoint_is_one_line(tmp_path):
  """Threads of Orbax and TensorStore hit it first: every one of the arrays is an error there."""
  done = _python(_SAVE, tmp_path)
  assert done.returncode == 2, done.stderr[-2000:]
  assert done.stderr == f'dream_jax: File too large: {tmp_path}; make room there or choose another --workdir\n'


def test_what_else_goes_wrong_in_a_thread_is_still_printed():
  code = """
  import threading
  from dream_jax.machine import disk
  disk.speak_once()
  def fail(error):
    raise error
  for error in (OSError(28, 'full'), ValueError('ours')):
    thread = threading.Thread(target=fail, args=[error])
    thread.start()
    thread.join()
  """
  done = _python(code)
  assert 'ValueError: ours' in done.stderr
  assert 'full' not in done.stderr


@pytest.mark.parametrize('wrapped', [False, True])
def test_what_the_disk_refused_is_found_below_what_a_library_made_of_it(wrapped, capsys):
  def fail():
    try:
      raise OSError(28, 'No space left on device', 'runs/x')
    except OSError as error:
      if not wrapped:
        raise
      raise RuntimeError('something about futures') from error

  assert exit_codes.exit_code(fail, writes_to='--workdir') == 2
  assert capsys.readouterr().err == (
    'dream_jax: No space left on device: runs/x; make room there or choose another --workdir\n'
  )


@pytest.mark.parametrize(
  'words',
  [
    'ResourceExhaustedError: Failed to finalize writing of split; No space left on device',
    'Not enough disk space. Needed: Unknown size',
    "Error writing file [os_error_code='122']",
  ],
)
def test_what_libraries_say_in_words_is_understood(words, capsys):
  def fail():
    raise RuntimeError(words)

  assert exit_codes.exit_code(fail, writes_to='--workdir') == 2
  assert capsys.readouterr().err.count('\n') == 1


def test_a_full_disk_is_told_with_the_name_of_the_log(tmp_path):
  (tmp_path / 'log').symlink_to('/dev/full')
  log = storage.open_log(tmp_path / 'log')
  with pytest.raises(OSError, match='No space left') as caught:
    log.append(b'line\n')
  log.close()
  assert caught.value.filename == str(tmp_path / 'log')


def test_a_full_disk_is_told_by_the_events_and_nobody_waits(tmp_path, monkeypatch):
  from tensorboardX import record_writer

  monkeypatch.setattr(record_writer, 'open_file', lambda path: open('/dev/full', 'wb'))  # noqa: SIM115
  events = Events(tmp_path, forget_from=0)
  with pytest.raises(OSError, match='No space left') as caught:
    events.add(1, dict.fromkeys(map(str, range(1000)), 0.5))
  assert str(tmp_path) in caught.value.filename
  with pytest.raises(OSError, match='No space left'):
    events.close()


_COMPILE = """
  import sys, types
  import jax
  from dream_jax.machine import compile_cache
  compile_cache.use_cache(types.SimpleNamespace(compile_cache=sys.argv[1]), 'nowhere')
  jax.config.update('jax_persistent_cache_min_compile_time_secs', 0.0)
  print(jax.jit(lambda x: x * 3 + 1)(2.0))
"""


def test_a_damaged_or_unwritable_cache_is_no_trouble(tmp_path):
  os.environ.pop('JAX_COMPILATION_CACHE_DIR', None)
  folder = tmp_path / 'cache'
  first = _python(_COMPILE, folder)
  kept = list(folder.glob('*-cache'))
  assert (first.stdout, first.stderr) == ('7.0\n', '')
  assert kept
  for path in kept:
    path.write_bytes(path.read_bytes()[:-20])
  again = _python(_COMPILE, folder)
  assert (again.stdout, again.stderr) == ('7.0\n', '')
  (tmp_path / 'file').write_text('')
  beside = _python(_COMPILE, tmp_path / 'file')
  assert beside.stdout.endswith('cannot be written: what is not there is compiled at every start\n7.0\n')
  assert beside.stderr == ''


@pytest.mark.slow
def test_the_command_is_interrupted_and_goes_on(root, tmp_path):
  """As a user does it: Ctrl-C once, and the same command again."""
  flags = (
    '--config=configs/digits.py:quick', f'--config.model.name={_METHOD}', '--config.controls=()',
    '--config.train.epochs=60', '--config.train.num_evals=1', "--config.protocols=('modality/noise',)",
    '--config.train.batch_size=1', f'--workdir={tmp_path / "run"}',
  )  # fmt: skip
  environment = {**os.environ, 'XLA_FLAGS': '', **compile_cache.environment()}
  started = subprocess.Popen(
    [sys.executable, '-m', 'dream_jax.main', *flags],
    cwd=root, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
  )  # fmt: skip
  deadline = time.monotonic() + 240
  while (
    not any(log.stat().st_size for log in tmp_path.glob('run/runs/*/metrics.jsonl')) and time.monotonic() < deadline
  ):
    time.sleep(0.05)
  started.send_signal(signal.SIGINT)
  errors = started.communicate(timeout=240)[1]
  assert started.returncode == 130, errors
  assert errors.count('\n') == 1
  assert f'interrupted: {_METHOD} saved at step ' in errors
  assert '; the same command continues where it stopped\n' in errors
