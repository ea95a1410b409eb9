"""What stands in the environment for somebody else: results do not depend on it, and nothing ends in a traceback."""

import os
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from small_runs import small_config, small_spec

import dream_jax
from dream_jax.api import empty_inputs
from dream_jax.errors import UserError
from dream_jax.machine import environment, exit_codes


@pytest.fixture
def fresh(monkeypatch):
  """As in a process that has not loaded JAX; variables of JAX are set anew."""
  for name in [name for name in os.environ if name.startswith('JAX_')]:
    monkeypatch.delenv(name)
  modules = {name: module for name, module in sys.modules.items() if name != 'jax'}
  monkeypatch.setattr(sys, 'modules', modules)
  return monkeypatch


_IGNORED = {
  'JAX_ENABLE_X64': '1',
  'JAX_NUMPY_DTYPE_PROMOTION': 'strict',
  'JAX_NUMPY_RANK_PROMOTION': 'raise',
  'JAX_DEBUG_NANS': '1',
  'JAX_DISABLE_JIT': '1',
  'JAX_DISABLE_MOST_OPTIMIZATIONS': '1',
  'JAX_DEFAULT_MATMUL_PRECISION': 'nonsense',
  'JAX_DEFAULT_PRNG_IMPL': 'rbg',
  'JAX_THREEFRY_PARTITIONABLE': '0',
  'JAX_RANDOM_SEED_OFFSET': '7',
  'JAX_TRANSFER_GUARD': 'disallow',
  'JAX_NAME_OF_A_LATER_VERSION': '1',
}


def test_variables_that_may_change_results_are_taken_out_and_named(fresh):
  heard = {'JAX_PLATFORMS': 'cpu', 'JAX_LOG_COMPILES': '0', 'JAX_COMPILATION_CACHE_DIR': '/c', 'JAX_CPU_X': '1'}
  for name, value in (_IGNORED | heard).items():
    fresh.setenv(name, value)
  fresh.setitem(sys.modules, 'jax', None)  # Whoever is heard loads it: here it must not be.
  del sys.modules['jax']
  fresh.setattr(
    'builtins.__import__', lambda name, *rest, load=__import__: None if name == 'jax' else load(name, *rest)
  )
  assert sorted(environment.settle()) == sorted(f'{name}={value}' for name, value in _IGNORED.items())
  assert {name: value for name, value in os.environ.items() if name.startswith('JAX_')} == heard


def test_where_jax_is_loaded_nothing_is_taken_out(monkeypatch):
  monkeypatch.setenv('JAX_ENABLE_X64', '1')
  assert environment.settle() == []
  assert os.environ['JAX_ENABLE_X64'] == '1'


def test_cache_folder_of_the_environment_knows_the_home_folder(fresh):
  fresh.setenv('HOME', '/h')
  fresh.setenv('JAX_COMPILATION_CACHE_DIR', '~/c')
  fresh.setattr(
    'builtins.__import__', lambda name, *rest, load=__import__: None if name == 'jax' else load(name, *rest)
  )
  environment.settle()
  assert os.environ['JAX_COMPILATION_CACHE_DIR'] == '/h/c'


@pytest.mark.parametrize(
  ('variable', 'value', 'words'),
  [
    ('JAX_PLATFORMS', 'cuda', ['JAX_PLATFORMS=cuda: there is no such device here', 'unset it', "'dream-jax[cuda12]'"]),
    ('JAX_PLATFORMS', 'nonsense', ['JAX_PLATFORMS=nonsense', 'not in the list of known backends']),
    ('XLA_FLAGS', '--xla_nonsense=1', ['XLA_FLAGS=--xla_nonsense=1 cannot be used (Unknown flag', 'unset XLA_FLAGS']),
    ('XLA_FLAGS', '--xla_force_host_platform_device_count=3', ['batch_size is 64; 3 devices share the rows']),
    ('JAX_LOG_COMPILES', 'perhaps', ['JAX cannot be loaded', 'correct or unset JAX_LOG_COMPILES']),
  ],
)
def test_what_cannot_be_used_is_refused_before_data_are_read(variable, value, words, root, tmp_path):
  environ = {k: v for k, v in os.environ.items() if k not in ('JAX_PLATFORMS', 'XLA_FLAGS')} | {variable: value}
  arguments = ['--config=configs/npz.py', f'--config.data.dir={tmp_path}/none', f'--workdir={tmp_path}/w']
  done = subprocess.run(
    [sys.executable, '-m', 'dream_jax.main', *arguments, '--config.num_seeds=1'],
    cwd=root, env=environ, capture_output=True, text=True, check=False,
  )  # fmt: skip
  assert done.returncode == 2, done.stderr
  assert done.stderr.count('\n') == 1, done.stderr
  for word in words:
    assert word in done.stderr
  assert not list(tmp_path.iterdir())


@pytest.fixture
def x64():
  """Turns 64-bit numbers on when it is called, as another project in the same notebook may have done."""
  yield lambda: jax.config.update('jax_enable_x64', True)
  jax.config.update('jax_enable_x64', False)


def test_functions_of_a_notebook_with_64_bits_give_the_same(x64):
  spec = small_spec(names=('text', 'pose'))  # One of integers and one of floats; more take longer to compile.
  model = dream_jax.make_apply(small_config(), spec=spec)
  rng = np.random.default_rng(0)
  inputs = {
    name: jnp.asarray(rng.normal(size=x.shape), jnp.float32) if x.dtype == jnp.float32 else x
    for name, x in empty_inputs(spec, 3).items()
  }

  def run():
    params = jax.jit(model.init)(jax.random.key(0))
    gradient = jax.jit(jax.grad(lambda p: model.apply(p, inputs).prediction.sum()))(params)
    return [params, jax.jit(model.apply)(params, inputs), gradient]

  before = jax.tree.leaves(run())
  x64()
  after = jax.tree.leaves(run())
  for a, b in zip(before, after, strict=True):
    assert a.dtype == b.dtype
    np.testing.assert_array_equal(a, b)


@pytest.mark.slow
def test_predictor_of_a_notebook_with_64_bits_gives_the_same(trained, x64):
  rng = np.random.default_rng(0)
  spec = dream_jax.load(trained[0]).spec
  inputs = {m.name: rng.normal(size=(5, *m.shape)) for m in spec.modalities}
  before = dream_jax.load(trained[0])(inputs)
  x64()
  after = dream_jax.load(trained[0])(inputs)
  for a, b in zip(jax.tree.leaves(before), jax.tree.leaves(after), strict=True):
    assert a.dtype == b.dtype
    np.testing.assert_array_equal(a, b)


def test_windows_is_told_at_once(monkeypatch, capsys):
  monkeypatch.setattr(sys, 'platform', 'win32')
  assert exit_codes.exit_code(lambda: pytest.fail('was run'), writes_to='--workdir') == 2
  assert capsys.readouterr().err == (
    'dream_jax: dream_jax does not run on Windows; expected Linux or macOS: use WSL (wsl --install) or a container\n'
  )
  with pytest.raises(UserError, match='does not run on Windows'):
    dream_jax.load  # noqa: B018


@pytest.mark.parametrize('module', ['dream_jax.main', 'dream_jax.datacheck.check'])
def test_commands_can_say_so_where_unix_is_absent(module, root):
  code = (
    'import importlib, sys\n'
    'for name in ("fcntl", "resource", "pwd", "grp", "termios"): sys.modules[name] = None\n'
    f'import dream_jax\ncommand = importlib.import_module("{module}")\n'
    'sys.platform = "win32"\n'
    f'sys.exit(command.main(["main", "--mode=list"] if "{module}".endswith("main") else ["here"]))\n'
  )
  done = subprocess.run([sys.executable, '-c', code], cwd=root, capture_output=True, text=True, check=False)
  assert (done.returncode, done.stdout) == (2, ''), done.stderr
  assert done.stderr.count('\n') == 1
  assert 'Windows' in done.stderr
