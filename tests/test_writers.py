"""What a run leaves behind while it runs: whole lines, one history after a kill, a progress line."""

import io
import struct

import numpy as np
import pytest
from tensorboardX.proto import event_pb2

from dream_jax.errors import UserError
from dream_jax.workdir import metrics_log
from dream_jax.workdir.config_guard import check_config, read_config, write_config


def _lines(workdir):
  return [record for _, record in metrics_log.read_metrics(workdir)]


def _write(workdir, method, steps, resume_step=-1):
  with metrics_log.MetricsWriter(workdir, method, resume_step=resume_step, tensorboard=False) as writer:
    for step in steps:
      writer.write(step, {'loss': np.float32(step) / 2, 'score': np.array([step, np.nan], np.float32)})


def test_metrics_line_holds_step_method_and_values(tmp_path):
  _write(tmp_path, 'dream', [4])
  assert _lines(tmp_path) == [{'method': 'dream', 'step': 4, 'loss': 2.0, 'score': [4.0, None]}]


def test_killed_and_resumed_run_leaves_the_same_file_as_an_unbroken_one(tmp_path):
  whole, broken = tmp_path / 'whole', tmp_path / 'broken'
  _write(whole, 'other', [1, 9])
  _write(whole, 'dream', [1, 2, 3, 4])
  _write(broken, 'other', [1, 9])
  _write(broken, 'dream', [1, 2, 3])
  with open(broken / 'metrics.jsonl', 'a') as file:
    file.write('{"method": "dream", "step": 2}')  # Torn: it parses, but its newline never came.
  _write(broken, 'dream', [3, 4], resume_step=2)
  assert (broken / 'metrics.jsonl').read_text() == (whole / 'metrics.jsonl').read_text()


def test_fresh_start_forgets_this_method_only(tmp_path):
  _write(tmp_path, 'dream', [0, 1])
  _write(tmp_path, 'other', [0, 1])
  _write(tmp_path, 'dream', [0])
  assert [(r['method'], r['step']) for r in _lines(tmp_path)] == [('other', 0), ('other', 1), ('dream', 0)]


def test_disabled_writer_touches_nothing(tmp_path):
  with metrics_log.MetricsWriter(tmp_path / 'run', 'dream', enabled=False) as writer:
    writer.write(1, {'loss': 1.0})
    writer.flush()
  assert not (tmp_path / 'run').exists()


def _events(path):
  """The events of one file: a TFRecord is length (8 bytes), checksum (4), data, checksum (4)."""
  data, at, events = path.read_bytes(), 0, []
  while at < len(data):
    (length,) = struct.unpack_from('<Q', data, at)
    events.append(event_pb2.Event.FromString(data[at + 12 : at + 12 + length]))
    at += length + 16
  return events


def test_tensorboard_run_holds_the_mean_over_seeds(tmp_path):
  with metrics_log.MetricsWriter(tmp_path, 'concat+dropout') as writer:
    writer.write(2, {'loss': np.array([2.0, 3.0]), 'note': 'text stays out'})
  (path,) = (tmp_path / 'tensorboard' / 'concat+dropout').iterdir()
  scalars = [(e.step, v.tag, v.simple_value) for e in _events(path) for v in e.summary.value]
  assert scalars == [(2, 'loss', 2.5)]


def test_resumed_tensorboard_run_tells_it_to_forget_what_came_after(tmp_path):
  _write(tmp_path, 'dream', [2])
  with metrics_log.MetricsWriter(tmp_path, 'dream', resume_step=2) as writer:
    writer.write(3, {'loss': 1.0})
  (path,) = (tmp_path / 'tensorboard' / 'dream').iterdir()
  starts = [e.step for e in _events(path) if e.session_log.status == event_pb2.SessionLog.START]
  assert starts == [3]


class _Clock:
  now = 0.0

  def __call__(self):
    return self.now


class _Terminal(io.StringIO):
  def isatty(self):
    return True


def test_piped_progress_prints_plain_lines_every_fifth_or_ten_seconds():
  clock, stream = _Clock(), io.StringIO()
  with metrics_log.Progress(100, label='dream', examples_per_step=64, stream=stream, clock=clock) as progress:
    for step in range(1, 101):
      clock.now += 1.0 if step < 50 else 0.0625
      progress.update(step, 'loss 0.5')
  lines = stream.getvalue().splitlines()
  assert [int(line.split('step ')[1].split('/')[0]) for line in lines] == [10, 20, 30, 40, 60, 80, 100]
  assert lines[0] == 'dream step 10/100, 1:30 left, 64 examples/s, loss 0.5'
  assert 'left' not in lines[-1]
  assert '\r' not in stream.getvalue()


def test_terminal_progress_draws_one_line_over_itself():
  clock, stream = _Clock(), _Terminal()
  with metrics_log.Progress(10, label='dream', start=4, stream=stream, clock=clock) as progress:
    for step in range(5, 11):
      clock.now += 0.06
      progress.update(step)
  text = stream.getvalue()
  assert text.count('\n') == 1
  assert text.endswith('\n')
  assert text.count('\r') == 3  # At most ten a second, and the last step always.
  assert '[####################] step 10/10' in text


def test_rate_leaves_the_first_step_with_its_compilation_out():
  clock, stream = _Clock(), io.StringIO()
  progress = metrics_log.Progress(10, stream=stream, clock=clock)
  clock.now = 100.0
  progress.update(1)
  clock.now = 102.0
  progress.update(5)
  assert 'step 5/10, 0:02 left, 2 steps/s' in stream.getvalue()


def test_workdir_keeps_its_config(tmp_path):
  config = {'seed': 0, 'train': {'epochs': 3, 'sizes': (1, 2)}, 'parallel': {'mesh': 1}, 'dir': None}
  run = 'train data hash'

  def check(config, *free):
    check_config(tmp_path / 'run', config, mode='train', free=('other', *free), run=run)

  check(config)
  assert not (tmp_path / 'run').exists()
  write_config(tmp_path / 'run', config, run)
  assert read_config(tmp_path / 'run') == {**config, 'train': {'epochs': 3, 'sizes': [1, 2]}}
  check({**config, 'parallel': {'mesh': 8}}, 'parallel')
  with pytest.raises(UserError, match=r'config\.parallel\.mesh is 1 there and 8 now'):
    check({**config, 'parallel': {'mesh': 8}})
  other = {**config, 'train': {'epochs': 4, 'sizes': (1, 2)}, 'new': 1}
  with pytest.raises(UserError, match=r'epochs is 3 there and 4 now; config\.new is absent there and 1 now; choose'):
    check(other)
  assert read_config(tmp_path / 'run')['train']['epochs'] == 3
  check_config(tmp_path / 'run', other, mode='train', free=None, run=run)
  with pytest.raises(UserError, match='holds a training; go on with --mode=train, or choose another --workdir'):
    check_config(tmp_path / 'run', config, mode='study', free=None, run='study data hash')


def test_workdir_that_is_no_workdir_is_refused(tmp_path):
  (tmp_path / 'file').write_text('x')
  with pytest.raises(UserError, match='is a file'):
    check_config(tmp_path / 'file', {}, mode='train', free=None)
  with pytest.raises(UserError, match=r'holds no config\.json'):
    read_config(tmp_path)
  (tmp_path / 'config.json').write_text('{"a"')
  with pytest.raises(UserError, match='cannot be read'):
    check_config(tmp_path, {'a': 1}, mode='train', free=None)
