"""Several real processes on this machine: they give what one gives, stop together, die together, and go on anywhere."""

import functools
import json
import os
import random
import signal
import socket
import subprocess
import sys
import time

import compile_cache
import numpy as np
import pytest
from run_places import run_folder

from dream_jax.errors import UserError
from dream_jax.parallel import hosts
from dream_jax.workdir import storage
from dream_jax.workdir.checkpoints import Checkpoints

_KILLS = int(os.environ.get('DREAM_TEST_KILLS', '3'))
# Cheap to compile: what several processes do to a run does not depend on what it trains. DREAM itself is tested once.
_METHOD = 'concat+dropout'
_FLAGS = (
  '--config=configs/digits.py:quick',
  f'--config.model.name={_METHOD}',
  '--config.num_seeds=2',
  '--config.mesh.seed=1',
  '--config.controls=()',
  "--config.protocols=('modality/noise',)",
  '--config.model.width=8',
  '--config.model.hidden=8',
  '--config.train.epochs=12',
  '--config.train.num_evals=10',
  '--config.train.validation_draws=1',
  '--config.train.checkpoint_seconds=0.0',
)


def test_alone_everything_is_decided_here():
  assert not hosts.several()
  assert hosts.is_main()
  assert hosts.agree(lambda: {'a': [1, None]}) == {'a': [1, None]}
  hosts.wait('anything')
  hosts.check_started()
  assert not hosts.stopping()


def test_processes_that_never_met_are_told(monkeypatch):
  monkeypatch.setattr(hosts.jax, 'process_count', lambda: 4)
  with pytest.raises(UserError, match='one of 4 processes; add --distributed'):
    hosts.check_started()


@pytest.mark.parametrize('process', [0, 1])
def test_what_process_0_refuses_all_refuse(monkeypatch, process):
  """The others would wait for one that has left, until the runtime aborts them."""
  sent = []

  def broadcast(value):
    sent.append(value) if process == 0 else None
    return value if process == 0 else sent.pop(0)

  def refuse():
    raise UserError('no')

  monkeypatch.setattr(hosts, 'several', lambda: True)
  monkeypatch.setattr(hosts, 'is_main', lambda: process == 0)
  monkeypatch.setattr(hosts.multihost_utils, 'broadcast_one_to_all', broadcast)
  for text in (b'[{"a": 1}, null]', b'[null, "no"]'):
    sent += [np.int32(len(text)), np.frombuffer(text, np.uint8)] if process else []
  assert hosts.agree(lambda: {'a': 1}) == {'a': 1}
  with pytest.raises(UserError, match='no'):
    hosts.agree(refuse)


class _Job:
  """N processes of one command."""

  def __init__(self, root, workdir, count, *flags, devices=1):
    self._workdir = workdir
    self._before = self._logged()
    port = _free_port()
    environment = {
      **os.environ,
      'JAX_PLATFORMS': 'cpu',
      'XLA_FLAGS': f'--xla_force_host_platform_device_count={devices}',
      **compile_cache.environment(),
    }
    command = [sys.executable, '-m', 'dream_jax.main', *_FLAGS, *flags, f'--workdir={workdir}']
    together = [f'--coordinator=127.0.0.1:{port}', f'--num_processes={count}'] if count > 1 else []
    self.processes, self._output = [], []
    for i in range(count):
      own = [f'--process_id={i}'] if count > 1 else []
      self.processes.append(
        subprocess.Popen(
          [*command, *together, *own],
          cwd=root,
          env=environment,
          stdout=subprocess.PIPE,
          stderr=subprocess.STDOUT,
          text=True,
        )
      )

  def wait_for_step(self, step):
    """Until this job has logged that step, or somebody has ended."""
    deadline = time.monotonic() + 300
    while time.monotonic() < deadline and all(p.poll() is None for p in self.processes):
      # Until processes have met, nobody can tell that one of them is dead, and the others wait longer than tests do.
      logged = self._logged()
      if logged != self._before and any(s >= step for s in _steps(logged)):
        return
      time.sleep(0.05)

  def _logged(self):
    return ''.join(log.read_text() for log in sorted(self._workdir.glob('runs/*/metrics.jsonl')))

  def finish(self, timeout=400):
    """Exit codes; what they printed is in `output`."""
    self.output = []
    deadline = time.monotonic() + timeout
    try:
      for process in self.processes:
        self.output.append(process.communicate(timeout=max(1.0, deadline - time.monotonic()))[0])
    finally:
      for process in self.processes:
        process.kill()
    return [p.returncode for p in self.processes]


def _steps(logged):
  for line in logged.splitlines():
    try:
      yield json.loads(line)['step']
    except ValueError:  # A line that is being written.
      return


def _params(workdir, method):
  with Checkpoints(run_folder(workdir, method) / 'checkpoints' / method, read_only=True) as checkpoints:
    return checkpoints.restore_best()


def _saved(workdir):
  with Checkpoints(run_folder(workdir, _METHOD) / 'checkpoints' / _METHOD, read_only=True) as checkpoints:
    return checkpoints.latest_step()


def _losses(workdir, method=_METHOD):
  records = [json.loads(line) for line in (run_folder(workdir, method) / 'metrics.jsonl').read_text().splitlines()]
  return {r['step']: r['loss'] for r in records if 'loss' in r}


def _leaves(tree):
  return [leaf for key in sorted(tree) for leaf in _leaves(tree[key])] if isinstance(tree, dict) else [np.asarray(tree)]


def _assert_same_run(workdir, other, method=_METHOD):
  """Bit for bit: parameters, log and results."""
  (step, params), (step_there, params_there) = _params(workdir, method), _params(other, method)
  assert step == step_there
  for a, b in zip(_leaves(params), _leaves(params_there), strict=True):
    np.testing.assert_array_equal(a, b)
  assert _losses(workdir, method) == _losses(other, method)
  mine, theirs = (json.loads((folder / 'results.json').read_text())['methods'] for folder in (workdir, other))
  assert mine[method]['protocols'] == theirs[method]['protocols']


@pytest.fixture(scope='module')
def job(root):
  """Starts processes that share what they compile."""
  return functools.partial(_Job, root)


@pytest.fixture(scope='module')
def two(job, tmp_path_factory):
  """Workdir of two processes that nobody disturbed."""
  workdir = tmp_path_factory.mktemp('two') / 'run'
  undisturbed = job(workdir, 2)
  assert undisturbed.finish() == [0, 0], undisturbed.output
  assert 'results:' in undisturbed.output[0]
  # Process 0 speaks for all; the runtime's own greeting is not ours.
  said = [line for line in undisturbed.output[1].splitlines() if '[Gloo]' not in line]
  assert len(said) == 1, said
  assert said[0].startswith('joining the other processes, process 0 at 127.0.0.1:')
  return workdir


@pytest.mark.parametrize('process', [0, 1])
def test_a_process_that_finds_nobody_says_so(process, root):
  code = (
    'import sys\n'
    'from dream_jax.parallel.cluster import Cluster\n'
    'from dream_jax.parallel import hosts\n'
    'hosts._START = 3\n'
    f'hosts.start(Cluster("127.0.0.1:{_free_port()}", 2, {process}))\n'
  )
  environment = {**os.environ, 'JAX_PLATFORMS': 'cpu'}
  done = subprocess.run(
    [sys.executable, '-c', code], cwd=root, env=environment, capture_output=True, text=True, timeout=60, check=False
  )
  assert done.returncode == 2, done.stderr
  assert 'waiting up to 3 s for all' in done.stdout
  assert 'dream_jax: the processes did not find each other in 3 s; expected process 0 to listen at' in done.stderr


def _free_port():
  with socket.socket() as probe:
    probe.bind(('127.0.0.1', 0))
    return probe.getsockname()[1]


@pytest.mark.slow
@pytest.mark.parametrize(('count', 'devices'), [(1, 2), (4, 1)], ids=['1x2', '4x1'])
def test_any_number_of_processes_trains_the_same_model(job, two, tmp_path, count, devices):
  other = job(tmp_path / 'run', count, devices=devices)
  assert other.finish() == [0] * count, other.output
  if (count, devices) == (1, 2):  # The same mesh: a sum of two numbers has one order.
    _assert_same_run(tmp_path / 'run', two)
    return
  mine, theirs = _losses(tmp_path / 'run'), _losses(two)
  assert mine.keys() == theirs.keys()
  # Other orders of summation; a hundred steps and more carry the last bits further than twenty do.
  for step in mine:
    np.testing.assert_allclose(mine[step], theirs[step], rtol=2e-3, err_msg=str(step))
  accuracy = [
    np.mean(
      json.loads((w / 'results.json').read_text())['methods'][_METHOD]['protocols']['complete']['metrics']['accuracy']
    )
    for w in (tmp_path / 'run', two)
  ]
  assert abs(accuracy[0] - accuracy[1]) < 0.02


@pytest.mark.slow
def test_dream_on_two_processes_is_that_of_one(job, tmp_path):
  for count, devices in ((2, 1), (1, 2)):
    one = job(tmp_path / f'{count}', count, '--config.model.name=dream', devices=devices)
    assert one.finish() == [0] * count, one.output
  _assert_same_run(tmp_path / '2', tmp_path / '1', 'dream')


@pytest.mark.slow
def test_sigterm_to_one_stops_all_and_the_same_command_continues(job, two, tmp_path):
  workdir = tmp_path / 'run'
  first = job(workdir, 2)
  first.wait_for_step(40)
  first.processes[1].send_signal(signal.SIGTERM)  # Process 0 hears it in the test of a bucket.
  assert first.finish() == [0, 0], first.output
  assert f'SIGTERM: {_METHOD} saved at step' in first.output[0]
  assert 'the same command continues' in first.output[0]
  assert not (workdir / 'results.json').exists()
  second = job(workdir, 2)
  assert second.finish() == [0, 0], second.output
  _assert_same_run(workdir, two)


@pytest.mark.slow
def test_sigterm_to_a_process_alone_saves_and_continues_on_two(job, two, tmp_path):
  workdir = tmp_path / 'run'
  alone = job(workdir, 1, devices=2)
  alone.wait_for_step(40)
  alone.processes[0].send_signal(signal.SIGTERM)
  assert alone.finish() == [0], alone.output
  assert f'SIGTERM: {_METHOD} saved at step' in alone.output[0]
  rest = job(workdir, 2)
  assert rest.finish() == [0, 0], rest.output
  _assert_same_run(workdir, two)


@pytest.mark.slow
@pytest.mark.parametrize('killed', [0, 1])
def test_death_of_one_ends_all_within_a_minute(job, two, tmp_path, killed):
  workdir = tmp_path / 'run'
  first = job(workdir, 2)
  first.wait_for_step(40)
  first.processes[killed].kill()
  start = time.monotonic()
  codes = first.finish(timeout=90)
  assert time.monotonic() - start < 60
  assert all(codes), codes
  if killed == 0:
    return  # What was saved does not depend on who died: one continuation is enough.
  # Another number of processes, of which three hold parameters that they did not save.
  second = job(workdir, 4)
  assert second.finish() == [0] * 4, second.output
  mine, theirs = _losses(workdir), _losses(two)
  assert mine.keys() == theirs.keys()
  for step in mine:
    np.testing.assert_allclose(mine[step], theirs[step], rtol=2e-3, err_msg=str(step))


@pytest.mark.slow
def test_killed_at_random_times_nothing_is_lost(job, two, tmp_path):
  rng = random.Random(os.environ.get('DREAM_TEST_KILL_SEED', '5'))
  workdir, reached = tmp_path / 'run', 0
  for _ in range(_KILLS):
    running = job(workdir, 2)
    running.wait_for_step(reached + 1)
    time.sleep(rng.uniform(0.0, 1.5))
    victim, how = rng.randrange(2), rng.choice((signal.SIGKILL, signal.SIGKILL, signal.SIGTERM))
    running.processes[victim].send_signal(how)
    codes = running.finish(timeout=90)
    assert all(codes) or (how == signal.SIGTERM and codes == [0, 0]) or (workdir / 'results.json').exists(), codes
    if (workdir / 'results.json').exists():  # What a finished run goes on from is gone.
      break
    saved = _saved(workdir) or 0
    assert saved >= reached, 'a checkpoint was lost'
    reached = saved
  last = job(workdir, 2)
  assert last.finish() == [0, 0], last.output
  _assert_same_run(workdir, two)


@pytest.mark.slow
def test_in_a_bucket_a_killed_run_goes_on_as_in_a_folder(job, two, bucket):
  workdir = storage.place(f'{bucket.url}/hosts')
  first = job(workdir, 2)
  first.wait_for_step(40)
  first.processes[1].kill()
  assert all(first.finish(timeout=90)), first.output
  assert not (workdir / 'results.json').exists()
  second = job(workdir, 2)
  second.wait_for_step(60)
  second.processes[0].send_signal(signal.SIGTERM)
  assert second.finish() == [0, 0], second.output
  assert f'SIGTERM: {_METHOD} saved at step {_saved(workdir)}' in second.output[0]
  last = job(workdir, 2)
  assert last.finish() == [0, 0], last.output
  _assert_same_run(workdir, two)


@pytest.mark.slow
def test_a_mistake_of_all_is_told_and_nobody_hangs(job, tmp_path):
  wrong = job(tmp_path / 'run', 2, '--config.train.batch_size=63')
  assert wrong.finish(timeout=120) == [2, 2], wrong.output
  assert 'config.train.batch_size is 63; 2 devices share the rows' in wrong.output[0]


@pytest.mark.slow
def test_all_stop_together_where_the_numbers_stop_being_finite(job, tmp_path):
  diverging = job(tmp_path / 'run', 2, '--config.optimizer.learning_rate=100', '--config.optimizer.weight_decay=10000')
  assert diverging.finish(timeout=200) == [2, 2], diverging.output
  for output in diverging.output:
    assert output.count(f'dream_jax: {_METHOD} diverged in steps 1 to') == 1
    assert 'Traceback' not in output


@pytest.mark.slow
def test_interrupting_one_saves_and_ends_all(job, two, tmp_path):
  workdir = tmp_path / 'run'
  first = job(workdir, 2)
  first.wait_for_step(40)
  first.processes[1].send_signal(signal.SIGINT)
  assert first.finish() == [130, 130], first.output
  for output in first.output:
    assert f'interrupted: {_METHOD} saved at step {_saved(workdir)}' in output
    assert 'Traceback' not in output
  second = job(workdir, 2)
  assert second.finish() == [0, 0], second.output
  _assert_same_run(workdir, two)


@pytest.mark.slow
def test_two_devices_a_process_are_refused(job, tmp_path):
  wrong = job(tmp_path / 'run', 2, devices=2)
  assert wrong.finish(timeout=120) == [2, 2], wrong.output
  assert '2 CPU devices in each of 2 processes' in wrong.output[0]


@pytest.mark.slow
def test_a_study_of_two_processes_is_that_of_one(job, tmp_path):
  flags = (
    '--mode=study',
    '--config.train.epochs=4',
    '--config.train.num_evals=2',
    "--config.study.methods=('late+dropout', 'majority')",
    "--config.study.regimes=('complete', 'modality/0.5')",
  )
  runs = {}
  for count, devices in ((2, 1), (1, 2)):
    workdir = tmp_path / f'{count}'
    one = job(workdir, count, *flags, devices=devices)
    assert one.finish() == [0] * count, one.output
    runs[count] = json.loads((workdir / 'results.json').read_text())
  mine, theirs = ({key: entry['protocols'] for key, entry in runs[count]['methods'].items()} for count in (2, 1))
  assert len(mine) == 6
  assert mine == theirs
