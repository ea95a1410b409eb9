"""The cache of compiled programs: in the workdir, where the user says, or nowhere; and it is read."""

import types

import jax
import pytest

from dream_jax.machine.compile_cache import use_cache


@pytest.fixture
def options(monkeypatch):
  """What would have been set in JAX."""
  monkeypatch.delenv('JAX_COMPILATION_CACHE_DIR', raising=False)
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
