"""Checkpoints come back to the bit, or the message says which folder or array is wrong; nothing is lost to a kill."""

import contextlib
import os
import shutil
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import orbax.checkpoint as ocp
import pytest
from jax.experimental import multihost_utils
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from dream_jax.errors import Preempted, UserError
from dream_jax.parallel import hosts
from dream_jax.workdir.checkpoints import Checkpoints, checkpoint_folder


class State(NamedTuple):
  step: jax.Array
  params: dict
  moments: tuple


def _state(step, width=40):
  rng = np.random.default_rng(step)
  kernel = jnp.asarray(rng.normal(size=(8, width)).astype(np.float32))
  return State(
    jnp.asarray(step, jnp.int32), {'dense': {'kernel': kernel, 'bias': jnp.ones((width,))}}, ((), kernel * 2.0)
  )


def _abstract(state):
  return jax.eval_shape(lambda: state)


def _assert_equal(a, b):
  assert jax.tree.structure(a) == jax.tree.structure(b)
  jax.tree.map(np.testing.assert_array_equal, a, b)


def test_saves_do_not_ask_the_runtime_about_sigterm_with_numbers_of_their_own(tmp_path, monkeypatch):
  asked = []
  monkeypatch.setattr(multihost_utils, 'reached_preemption_sync_point', asked.append)
  with Checkpoints(tmp_path) as checkpoints:
    for step in (10, 20):
      checkpoints.save(step, _state(step))
    checkpoints.save_best(20, _state(20).params)
  assert not asked


def test_latest_state_comes_back_to_the_bit_and_old_ones_go(tmp_path):
  with Checkpoints(tmp_path, max_to_keep=2) as checkpoints:
    assert checkpoints.restore_latest(_abstract(_state(0))) is None
    for step in (10, 20, 30):
      checkpoints.save(step, _state(step))
  assert {p.name for p in (tmp_path / 'state').iterdir()} == {'20', '30'}
  with Checkpoints(tmp_path) as checkpoints:
    step, state = checkpoints.restore_latest(_abstract(_state(0)))
  assert step == 30
  assert isinstance(state, State)
  assert not state.step.weak_type
  _assert_equal(state, _state(30))


@pytest.mark.parametrize('method', ["dream[inject.fills=('zeros',), model.assess=False]", 'dream[a=*, b=?, c=x/y]'])
def test_methods_with_settings_of_their_own_come_back(tmp_path, method):
  """Orbax finds the parts of a save by `glob`, and takes brackets in the names of folders for wildcards."""
  folder = checkpoint_folder(str(tmp_path), method)
  assert Path(folder).parent == tmp_path / 'checkpoints'
  with Checkpoints(folder) as checkpoints:
    checkpoints.save(10, _state(10))
    checkpoints.save_best(10, _state(11).params)
  with Checkpoints(folder, read_only=True) as checkpoints:
    _assert_equal(checkpoints.restore_latest(_abstract(_state(0)))[1], _state(10))
    _assert_equal(checkpoints.restore_best(_abstract(_state(0).params))[1], _state(11).params)


@pytest.mark.parametrize('name', ['runs[1]', 'what?', 'a*'])
def test_a_folder_whose_saves_could_not_be_read_is_not_written_to(tmp_path, name):
  with pytest.raises(UserError, match='takes for wildcards'):
    Checkpoints(tmp_path / name / 'dream')
  assert not (tmp_path / name).exists()
  # What was saved elsewhere and moved here is whole.
  with Checkpoints(tmp_path / 'before') as checkpoints:
    checkpoints.save(10, _state(10))
  (tmp_path / 'before').rename(tmp_path / name)
  with Checkpoints(tmp_path / name, read_only=True) as checkpoints:
    _assert_equal(checkpoints.restore_latest(_abstract(_state(0)))[1], _state(10))


def test_step_that_is_there_stays_and_an_earlier_one_is_refused(tmp_path):
  with Checkpoints(tmp_path) as checkpoints:
    checkpoints.save(10, _state(10))
    checkpoints.wait()
    checkpoints.save(10, _state(11))
    with pytest.raises(ValueError, match='two histories'):
      checkpoints.save(5, _state(5))
    _assert_equal(checkpoints.restore_latest(_abstract(_state(0)))[1], _state(10))


def test_best_replaces_an_earlier_choice_and_one_from_a_lost_future(tmp_path):
  with Checkpoints(tmp_path) as checkpoints:
    assert checkpoints.restore_best() is None
    for step in (10, 30):
      checkpoints.save_best(step, _state(step).params)
      assert checkpoints.best_step() == step
  # Killed before the state of step 30 was saved: the replay starts from an earlier state and chooses again.
  for step in (30, 20):
    with Checkpoints(tmp_path) as checkpoints:
      checkpoints.save_best(step, _state(step + 1).params)
      assert checkpoints.best_step() == step
      _assert_equal(checkpoints.restore_best(_abstract(_state(0).params))[1], _state(step + 1).params)
  with Checkpoints(tmp_path, read_only=True) as checkpoints:
    step, params = checkpoints.restore_best()
    assert step == 20
    assert isinstance(params['dense']['kernel'], np.ndarray)
    _assert_equal(params, jax.tree.map(np.asarray, _state(21).params))


def test_state_saved_on_eight_devices_comes_back_on_one_and_on_four(tmp_path):
  def sharded(count):
    mesh = Mesh(np.array(jax.devices()[:count]), ('data',))
    return NamedSharding(mesh, PartitionSpec(None, 'data'))

  kernel = jax.device_put(_state(1).params['dense']['kernel'], sharded(8))
  with Checkpoints(tmp_path) as checkpoints:
    checkpoints.save(1, {'kernel': kernel})
    checkpoints.wait()
    for count in (1, 4):
      abstract = {'kernel': jax.ShapeDtypeStruct(kernel.shape, kernel.dtype, sharding=sharded(count))}
      restored = checkpoints.restore_latest(abstract)[1]['kernel']
      assert len(restored.sharding.device_set) == count
      np.testing.assert_array_equal(restored, kernel)


@pytest.mark.parametrize(
  ('change', 'words'),
  [
    (
      lambda s: _state(0, width=41),
      ['params/dense/bias is float32[40] there, expected float32[41]', 'and 2 more'],
    ),
    (
      lambda s: s._replace(params={'dense': {'kernel': s.params['dense']['kernel']}}),
      ['params/dense/bias is float32[40] there, expected no such array'],
    ),
    (
      lambda s: s._replace(params={**s.params, 'gate': jnp.ones((2,))}),
      ['params/gate is absent there, expected float32[2]'],
    ),
    (lambda s: s._replace(step=jnp.zeros((), jnp.float32)), ['step is int32[] there, expected float32[]']),
  ],
)
def test_other_tree_is_refused_by_the_name_of_the_leaf(tmp_path, change, words):
  with Checkpoints(tmp_path) as checkpoints:
    checkpoints.save(7, _state(7))
  with Checkpoints(tmp_path) as checkpoints, pytest.raises(UserError) as caught:
    checkpoints.restore_latest(_abstract(change(_state(0))))
  for word in [str(tmp_path / 'state' / '7'), '--workdir', *words]:
    assert word in str(caught.value)
  with Checkpoints(tmp_path) as checkpoints:
    _assert_equal(checkpoints.restore_latest(_abstract(_state(0)))[1], _state(7))


def _flip(path):
  data = bytearray(path.read_bytes())
  data[len(data) // 2] ^= 0x01
  path.write_bytes(data)


@pytest.mark.parametrize(
  'damage',
  [
    _flip,
    lambda path: path.write_bytes(path.read_bytes()[: path.stat().st_size // 2]),
    lambda path: path.write_bytes(b'garbage'),
    lambda path: path.unlink(),
  ],
  ids=['one bit flipped', 'truncated', 'garbage', 'gone'],
)
@pytest.mark.parametrize('pattern', ['default/_METADATA', 'default/**/d/*'])
def test_damage_is_told_with_the_folder_and_nothing_is_overwritten(tmp_path, capfd, damage, pattern):
  with Checkpoints(tmp_path) as checkpoints:
    checkpoints.save(6, _state(6, width=4000))
    checkpoints.save(7, _state(7, width=4000))
  target = max((tmp_path / 'state' / '7').glob(pattern), key=lambda p: p.stat().st_size)
  damage(target)
  before = {p: p.read_bytes() for p in tmp_path.rglob('*') if p.is_file()}
  with Checkpoints(tmp_path) as checkpoints, pytest.raises(UserError) as caught:
    checkpoints.restore_latest(_abstract(_state(0, width=4000)))
  message = str(caught.value)
  assert str(tmp_path / 'state' / '7') in message
  assert 'remove that folder' in message
  assert '\n' not in message
  assert {p: p.read_bytes() for p in tmp_path.rglob('*') if p.is_file()} == before
  assert 'Traceback' not in capfd.readouterr().err


def test_a_file_that_orbax_does_without_is_missed_too(tmp_path):
  with Checkpoints(tmp_path) as checkpoints:
    checkpoints.save(7, _state(7))
  (tmp_path / 'state' / '7' / 'default' / '_sharding').unlink()
  with Checkpoints(tmp_path) as checkpoints, pytest.raises(UserError, match='_sharding is gone'):
    checkpoints.restore_latest(_abstract(_state(0)))


def test_a_save_without_a_seal_is_not_finished(tmp_path, capsys):
  folder = tmp_path / 'run'
  with Checkpoints(folder) as checkpoints:
    for step in (6, 7):
      checkpoints.save(step, _state(step))
    checkpoints.save_best(7, _state(7).params)
  for kind in ('state', 'best'):
    (folder / kind / '7' / 'sha256.json').unlink()
  with Checkpoints(folder, read_only=True) as checkpoints:
    assert checkpoints.restore_latest(_abstract(_state(0)))[0] == 6
    assert not checkpoints.has_best(7)
    with pytest.raises(UserError, match=r'best/7 is not finished: it has no seal; remove the folder of that run'):
      checkpoints.restore_best()
  assert (folder / 'state' / '7').exists()
  assert capsys.readouterr().out == ''
  with Checkpoints(folder) as checkpoints:
    assert checkpoints.restore_latest(_abstract(_state(0)))[0] == 6
    assert 'state/7 has no seal' in (said := capsys.readouterr().out)
    assert 'training goes on from the save before it, of step 6' in said
    checkpoints.save(7, _state(7))
    checkpoints.save_best(7, _state(7).params)
    assert checkpoints.has_best(7)
  (folder / 'state' / '6' / 'sha256.json').unlink()
  with Checkpoints(folder) as checkpoints:  # An older one without a seal is nobody's business.
    _assert_equal(checkpoints.restore_latest(_abstract(_state(0)))[1], _state(7))
  (folder / 'state' / '7' / 'sha256.json').unlink()
  with Checkpoints(folder) as checkpoints:
    assert checkpoints.restore_latest(_abstract(_state(0))) is None
  assert 'training goes on from the start' in capsys.readouterr().out


@pytest.mark.parametrize('kind', ['state', 'best'])
def test_saves_of_another_run_or_place_are_refused(tmp_path, kind):
  def restore(checkpoints):
    state = _state(0)
    return (checkpoints.restore_latest if kind == 'state' else checkpoints.restore_best)(
      _abstract(state if kind == 'state' else state.params)
    )

  for run in 'ab':
    with Checkpoints(tmp_path / run, run=run) as checkpoints:
      checkpoints.save(7, _state(7))
      checkpoints.save_best(7, _state(7).params)
  shutil.rmtree(tmp_path / 'a' / kind)
  shutil.copytree(tmp_path / 'b' / kind, tmp_path / 'a' / kind)
  with Checkpoints(tmp_path / 'a', run='a') as checkpoints:
    with pytest.raises(UserError, match=rf'{kind}/7/sha256.json belongs to another run .*remove (that|the) folder'):
      restore(checkpoints)
    assert not checkpoints.has_best(7) or kind == 'state'
  with Checkpoints(tmp_path / 'a', run='b') as checkpoints:
    assert restore(checkpoints)[0] == 7
  (tmp_path / 'b' / kind / '7').rename(tmp_path / 'b' / kind / '9')
  with Checkpoints(tmp_path / 'b', run='b') as checkpoints, pytest.raises(UserError, match=f'written as {kind}/7, exp'):
    restore(checkpoints)


@pytest.mark.parametrize('damage', [b'', b'{', b'{"default/_METADATA": "ab"}'], ids=['empty', 'torn', 'earlier'])
def test_a_damaged_seal_is_told(tmp_path, damage):
  with Checkpoints(tmp_path) as checkpoints:
    checkpoints.save(7, _state(7))
  (tmp_path / 'state' / '7' / 'sha256.json').write_bytes(damage)
  with Checkpoints(tmp_path) as checkpoints, pytest.raises(UserError, match=r'7/sha256.json .*; remove that folder'):
    checkpoints.restore_latest(_abstract(_state(0)))


def test_read_only_changes_nothing(tmp_path):
  with Checkpoints(tmp_path / 'none', read_only=True) as checkpoints:
    assert checkpoints.restore_latest(_abstract(_state(0))) is None
    assert checkpoints.latest_step() is None
    with pytest.raises(ValueError, match='read-only'):
      checkpoints.save(1, _state(1))
  assert not (tmp_path / 'none').exists()


def test_full_disk_is_an_os_error_before_the_first_byte(tmp_path, monkeypatch):
  usage = type('Usage', (), {'free': 100})
  monkeypatch.setattr('shutil.disk_usage', lambda path: usage)
  with Checkpoints(tmp_path) as checkpoints, pytest.raises(OSError, match='No space left') as caught:
    checkpoints.save(1, _state(1))
  assert caught.value.errno == 28
  assert list((tmp_path / 'state').iterdir()) == []


@pytest.mark.parametrize(
  ('several', 'error', 'waits'),
  [(True, RuntimeError, False), (True, Preempted, True), (True, None, True), (False, RuntimeError, True)],
)
def test_only_a_failure_in_one_of_several_processes_does_not_wait(tmp_path, monkeypatch, several, error, waits):
  closed, close = [], ocp.CheckpointManager.close

  def count(manager):
    closed.append(manager.directory.name)
    close(manager)

  monkeypatch.setattr(ocp.CheckpointManager, 'close', count)
  monkeypatch.setattr(hosts, 'several', lambda: several)
  checkpoints = Checkpoints(tmp_path)
  with contextlib.suppress(RuntimeError, Preempted), checkpoints:
    checkpoints.save_best(1, _state(1).params)
    checkpoints.save(1, _state(1))
    if error:
      raise error
  assert sorted(closed) == (['best', 'state'] if waits else [])
  assert (tmp_path / 'state' / '1' / 'sha256.json').exists() == waits
  checkpoints.close()  # A process that failed would have left by now; this one has other tests to run.


_SAVER = """
  import sys
  import jax.numpy as jnp, numpy as np
  from dream_jax.workdir.checkpoints import Checkpoints
  with Checkpoints(sys.argv[1]) as checkpoints:
    start = (checkpoints.latest_step() or 0) + 1
    for step in range(start, 1000):
      checkpoints.save(step, {'w': jnp.full((1000, 1000), step, jnp.float32), 'step': jnp.asarray(step, jnp.int32)})
      print(step, flush=True)
"""


def test_killed_save_is_ignored_and_the_next_run_goes_on(tmp_path):
  abstract = {'w': jax.ShapeDtypeStruct((1000, 1000), jnp.float32), 'step': jax.ShapeDtypeStruct((), jnp.int32)}
  last = 0
  for delay in (0.0, 0.03):
    process = subprocess.Popen(
      [sys.executable, '-c', textwrap.dedent(_SAVER), str(tmp_path)],
      stdout=subprocess.PIPE,
      text=True,
      cwd=Path(__file__).parent.parent,
      env={**os.environ, 'JAX_PLATFORMS': 'cpu'},
    )
    started = [int(process.stdout.readline()) for _ in range(4)]
    assert started[0] == last + 1
    time.sleep(delay)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    # A reader must not clean away what may be a save in flight of another process; the next writer does.
    torn = set((tmp_path / 'state').glob('*tmp*'))
    with Checkpoints(tmp_path, read_only=True) as checkpoints:
      assert checkpoints.latest_step() >= started[-2]
      time.sleep(0.2)  # Orbax cleans in the background.
    assert set((tmp_path / 'state').glob('*tmp*')) == torn
    with Checkpoints(tmp_path) as checkpoints:
      last, state = checkpoints.restore_latest(abstract)
    assert last >= started[-2]  # The save before the one in flight was whole.
    assert int(state['step']) == last
    np.testing.assert_array_equal(state['w'], np.full((1000, 1000), last, np.float32))
    assert not list((tmp_path / 'state').glob('*tmp*'))
