"""Files of a run, in a folder and in a bucket: whole or absent, no line lost, two writers told of each other."""

import json
import re
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import dream_jax
from dream_jax.errors import UserError
from dream_jax.workdir import storage
from dream_jax.workdir.checkpoints import Checkpoints
from dream_jax.workdir.metrics_log import METRICS_FILE, MetricsWriter


@pytest.fixture(params=['folder', 'bucket'])
def workdir(request, tmp_path, bucket):
  """A new workdir, in either."""
  return str(tmp_path / 'run') if request.param == 'folder' else f'{bucket.url}/{tmp_path.name}'


def test_a_file_is_replaced_whole(workdir):
  path = storage.place(workdir) / 'deep' / 'file'
  storage.write(path, b'old')
  storage.write(path, b'new')
  assert path.read_bytes() == b'new'
  assert [p.name for p in path.parent.iterdir()] == ['file']
  storage.remove_folder(workdir)
  assert not path.exists()
  storage.remove_folder(workdir)


def test_a_log_keeps_what_was_synced_and_drops_what_is_truncated(workdir):
  path = storage.place(workdir) / 'log'
  log = storage.open_log(path)
  log.append(b'one\n')
  log.append(b'two\n')
  log.sync()
  assert path.read_bytes() == b'one\ntwo\n'
  log.close()
  log = storage.open_log(path)
  log.truncate(4)
  log.append(b'too\n')
  assert log.read() == b'one\ntoo\n'
  log.close()
  assert path.read_bytes() == b'one\ntoo\n'
  log = storage.open_log(path)
  log.truncate(0)
  log.close()
  assert path.read_bytes() == b''


def test_the_later_of_two_writers_in_a_bucket_is_told_and_writes_nothing(bucket, tmp_path):
  """A folder is locked before anything is opened, see `test_lock`."""
  workdir = f'{bucket.url}/{tmp_path.name}'

  def opened(method, after):
    return MetricsWriter(workdir, method, resume_step=after, tensorboard=False)

  def write(writer, step):
    writer.write(step, {})
    writer.flush()

  def beside(writer, step):
    with opened('other', -1) as other:
      write(writer, step)
      write(other, step)

  for step in (1, 3):
    with opened('mine', step - 1 or -1) as writer:
      write(writer, step)
      with pytest.raises(UserError, match=r'another process is at work in gs://'):
        beside(writer, step + 1)
  lines = [json.loads(line) for line in (storage.place(workdir) / METRICS_FILE).read_text().splitlines()]
  assert [(line['method'], line['step']) for line in lines] == [('mine', step) for step in (1, 2, 3, 4)]


def test_a_write_whose_answer_was_lost_is_not_taken_for_another_writer(bucket):
  path = storage.place(f'{bucket.url}/answer/log')
  log = storage.open_log(path)
  log.append(b'line\n')
  storage.write(path, b'line\n')  # What the client sent before it tried again.
  log.sync()
  log.append(b'more\n')
  log.close()
  assert path.read_bytes() == b'line\nmore\n'


def test_what_another_process_wrote_since_is_seen(bucket):
  folder = storage.place(f'{bucket.url}/seen')
  storage.write(folder / 'mine', b'')
  assert [p.name for p in folder.iterdir()] == ['mine']
  code = f"from dream_jax.workdir import storage; storage.write('{folder}/theirs', b'there')"
  subprocess.run([sys.executable, '-c', code], check=True)
  assert (folder / 'theirs').read_bytes() == b'there'
  assert sorted(p.name for p in folder.iterdir()) == ['mine', 'theirs']


def test_resumed_metrics_are_those_of_an_unbroken_run(workdir):
  with MetricsWriter(workdir, 'dream') as writer:
    for step in (1, 2, 3):
      writer.write(step, {'loss': step / 2})
  with MetricsWriter(workdir, 'dream', resume_step=2) as writer:
    writer.write(3, {'loss': 1.5})
    writer.flush()
    lines = (storage.place(workdir) / METRICS_FILE).read_text().splitlines()
  assert [json.loads(line)['step'] for line in lines] == [1, 2, 3]
  assert [*(storage.place(workdir) / 'tensorboard' / 'dream').iterdir()]


def test_checkpoints_in_a_bucket_come_back_and_old_ones_go(bucket):
  folder = f'{bucket.url}/checkpoints'
  state = {'kernel': jnp.arange(64.0).reshape(8, 8), 'step': jnp.asarray(3, jnp.int32)}
  mesh = jax.make_mesh((8,), ('data',))
  spread = jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec('data'))
  with Checkpoints(folder) as checkpoints:
    for step in (1, 2, 3):
      checkpoints.save(step, {**state, 'kernel': jax.device_put(state['kernel'] + step, spread)})
      checkpoints.save_best(step, {'kernel': state['kernel']})
  assert {name.split('/')[0] for name in bucket.below('checkpoints/state/')} == {'2', '3'}
  assert {name.split('/')[0] for name in bucket.below('checkpoints/best/')} == {'3'}
  with Checkpoints(folder, read_only=True) as checkpoints:
    step, found = checkpoints.restore_latest(jax.eval_shape(lambda: state))
  assert step == 3
  np.testing.assert_array_equal(found['kernel'], state['kernel'] + 3)


def test_a_save_in_a_bucket_that_was_not_finished_is_passed_over(bucket):
  folder = f'{bucket.url}/unfinished'
  state = {'kernel': jnp.ones(3)}
  with Checkpoints(folder) as checkpoints:
    checkpoints.save(1, state)
    checkpoints.save(2, state)
  for name in [n for n in bucket.below('unfinished/state/2/') if n == 'commit_success.txt']:
    (storage.place(folder) / 'state' / '2' / name).unlink()
  with Checkpoints(folder) as checkpoints:
    assert checkpoints.latest_step() == 1
    checkpoints.save(2, state)
  with Checkpoints(folder) as checkpoints:
    assert checkpoints.restore_latest(jax.eval_shape(lambda: state))[0] == 2


def test_damage_in_a_bucket_is_told(bucket):
  folder = f'{bucket.url}/damaged'
  state = {'kernel': jnp.ones(3)}
  with Checkpoints(folder) as checkpoints:
    checkpoints.save(1, state)
  for name in bucket.below('damaged/state/1/'):
    if '/d/' in name:
      (storage.place(folder) / 'state' / '1' / name).unlink()
  with Checkpoints(folder) as checkpoints, pytest.raises(UserError, match=r'gs://.*/state/1 cannot be read'):
    checkpoints.restore_latest(jax.eval_shape(lambda: state))


@pytest.mark.parametrize(
  ('path', 'words'),
  [
    ('s3://bucket/run', r's3://bucket/run is neither a folder nor in a bucket; expected a path, or gs://BUCKET/FOLDER'),
    ('gs://dream', r'gs://dream names no folder in a bucket'),
    ('gs:///run', r'gs:///run names no folder in a bucket'),
    ('gs://elsewhere/run', r'there is no bucket gs://elsewhere; make it with: gcloud storage buckets create'),
  ],
)
def test_places_that_are_none_are_refused(bucket, path, words):
  with pytest.raises(UserError, match=words):
    storage.place(path)


def test_without_the_packages_the_way_to_install_them_is_told(monkeypatch):
  monkeypatch.setattr(storage, '_installed', lambda name: name != 'gcsfs')
  with pytest.raises(UserError, match=r'gs://other needs gcsfs; install them with: pip install "dream-jax\[gcs\]"'):
    storage.place('gs://other/run')


def test_a_bucket_that_cannot_be_reached_is_told(bucket, monkeypatch):
  def client():
    raise ConnectionError('no route\nto host')

  monkeypatch.setattr(storage, '_client', client)
  with pytest.raises(UserError, match=r'gs://far cannot be reached \(no route\); .*gcloud auth'):
    storage.place('gs://far/run')


@pytest.mark.slow
def test_a_run_in_a_bucket_is_the_run_in_a_folder(command, trained, bucket):
  workdir = f'{bucket.url}/run'
  process = command(*command.quick, f'--workdir={workdir}')
  assert process.returncode == 0, process.stderr[-2000:]
  assert f'results: {workdir}/results.json' in process.stdout
  mine, theirs = json.loads(bucket['run/results.json']), json.loads((trained[0] / 'results.json').read_text())
  for name, method in theirs['methods'].items():
    assert mine['methods'][name]['protocols'] == method['protocols']
  kept = {'config.json', 'figures', 'report.html', 'results.json', 'runs'}
  found = {re.sub(r'\.[0-9a-f]{16}\.', '.', name.split('/')[0]) for name in bucket.below('run/')}
  assert found == kept
  inputs = {name: np.zeros((2, *shape), np.float32) for name, shape in _shapes(mine, workdir).items()}
  ours, other = dream_jax.load(workdir)(inputs), dream_jax.load(trained[0])(inputs)
  np.testing.assert_array_equal(ours.prediction, other.prediction)
  before = {name: bucket[name] for name in bucket.below('')}
  again = command(*command.quick, f'--workdir={workdir}')
  assert again.stdout.count('finished before') == 3
  wrong = command(*command.quick, f'--workdir={workdir}', '--config.model.width=16')
  assert wrong.returncode == 2
  assert f'{workdir} was made with another config' in wrong.stderr
  changed = {name for name in before if bucket[name] != before[name]}
  assert not [name for name in changed if name.split('/')[1] not in ('figures', 'report.html', 'results.json')]


def _shapes(results, workdir):
  (path,) = (storage.place(workdir) / results['runs'][0]['folder']).glob('spec.json')
  spec = json.loads(path.read_text())['spec']
  return {m['name']: tuple(m['shape']) for m in spec['modalities']}
