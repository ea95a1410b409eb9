"""The cache of compiled programs: in the workdir, where the user says, or nowhere; and it is read."""

import shutil
import types

import jax
import pytest
from jax._src import compilation_cache

from dream_jax.machine.compile_cache import use_cache


@pytest.fixture
def options(monkeypatch):
  """What would have been set in JAX."""
  monkeypatch.delenv('JAX_COMPILATION_CACHE_DIR', raising=False)
  monkeypatch.setattr(compilation_cache, 'get_file_cache', compilation_cache.get_file_cache)
  chosen = {}
  monkeypatch.setattr(jax.config, 'update', chosen.__setitem__)
  return chosen


def test_cache_is_in_the_workdir_unless_the_config_says_otherwise(options):
  use_cache(types.SimpleNamespace(compile_cache=''), 'runs/x')
  assert options['jax_compilation_cache_dir'] == 'runs/x/xla_cache'
  use_cache(types.SimpleNamespace(compile_cache='/tmp/mine'), 'runs/x')
  assert options['jax_compilation_cache_dir'] == '/tmp/mine'


def test_cache_can_be_off_and_gives_way_to_the_environment(options, monkeypatch):
  use_cache(types.SimpleNamespace(compile_cache='off'), 'runs/x')
  monkeypatch.setenv('JAX_COMPILATION_CACHE_DIR', '/tmp/theirs')
  use_cache(types.SimpleNamespace(compile_cache=''), 'runs/x')
  assert options == {}


@pytest.fixture
def cache(options, tmp_path):
  """What JAX would keep programs in, with two of them."""
  for _ in range(2):  # The second time nothing is sealed twice.
    use_cache(types.SimpleNamespace(compile_cache='off'), 'runs/x')
  found = compilation_cache.get_file_cache(str(tmp_path))
  assert found is not None
  for key in ('train', 'predict'):
    found[0].put(key, b'program of ' + key.encode())
  return found[0]


def _copied(train, predict):
  shutil.copy(predict, train)


def _flipped(train, _):
  content = bytearray(train.read_bytes())
  content[-1] ^= 1
  train.write_bytes(content)


def _cut(train, _):
  train.write_bytes(train.read_bytes()[:5])


@pytest.mark.parametrize('damage', [_copied, _flipped, _cut])
def test_a_program_that_is_not_that_of_its_name_is_compiled_again_and_kept(damage, cache, tmp_path):
  assert cache.get('absent') is None
  assert cache.get('train') == b'program of train'
  train, predict = tmp_path / 'train-sealed-cache', tmp_path / 'predict-sealed-cache'
  damage(train, predict)
  assert cache.get('train') is None
  assert cache.get('predict') == b'program of predict'
  cache.put('train', b'program of train')
  assert cache.get('train') == b'program of train'


def test_programs_of_others_are_left_alone(cache, tmp_path):
  (tmp_path / 'other-cache').write_bytes(b'theirs')
  assert cache.get('other') is None
  assert (tmp_path / 'other-cache').read_bytes() == b'theirs'
