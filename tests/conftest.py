"""The strict room of every test: eight CPU devices, no silent dtype or rank promotion, our own warnings are errors."""

import fcntl
import gc
import importlib.metadata
import json
import os
import signal
import subprocess
import sys
from pathlib import Path

# Before the first import of jax: the number of devices is read once.
os.environ['JAX_PLATFORMS'] = os.environ.get('DREAM_TEST_PLATFORM', 'cpu')
_FLAGS = {
  '--xla_force_host_platform_device_count': '8',
  # Compiling is most of the time of the tests, and nothing here runs long enough for good code to pay: these take a
  # third of the time. Commands that tests start have none of it.
  '--xla_cpu_parallel_codegen_split_count': '1',
  '--xla_backend_optimization_level': '0',
  '--xla_llvm_disable_expensive_passes': 'true',
}
if importlib.metadata.version('jaxlib') < '0.11':  # Later ones abort at a flag they do not know.
  _FLAGS['--xla_cpu_use_fusion_emitters'] = 'false'
_given = os.environ.get('XLA_FLAGS', '')
os.environ['XLA_FLAGS'] = ' '.join([_given, *(f'{k}={v}' for k, v in _FLAGS.items() if k not in _given)]).strip()
os.environ.setdefault('TF_CPP_MIN_LOG_LEVEL', '3')
# Forks of this process would inherit JAX's threads; Matplotlib would look for a display.
os.environ.setdefault('MPLBACKEND', 'Agg')
# A shell starts what ends in & with SIGINT ignored, every child inherits that, and Bash cannot trap what was ignored.
if signal.getsignal(signal.SIGINT) == signal.SIG_IGN:
  signal.signal(signal.SIGINT, signal.default_int_handler)

import bucket_world  # noqa: E402
import compile_cache  # noqa: E402
import jax  # noqa: E402
import pytest  # noqa: E402

import dream_jax.workdir.storage  # noqa: E402, F401  # Before anything asks etils for a path.

jax.config.update('jax_numpy_dtype_promotion', 'strict')
jax.config.update('jax_numpy_rank_promotion', 'raise')
# The two processes of the tests, and files within one, compile much of the same.
jax.config.update('jax_compilation_cache_dir', compile_cache.folder())
jax.config.update('jax_persistent_cache_min_compile_time_secs', 0.1)

# Programs that are traced and compiled are millions of objects, and looking through them for garbage takes a tenth of
# the time.
gc.set_threshold(100_000, 50, 100)


# Files that take the most CPU time, longest first: a long one that is started last leaves the other process idle.
_LONGEST = (
  'docs', 'models', 'kills', 'estimator', 'main', 'train', 'study', 'suite', 'storage', 'study_report', 'damage',
  'pipeline', 'api', 'hidden_mask', 'stops', 'workdir_grows', 'divergence', 'precision', 'frames', 'overrides',
  'environment', 'launch_cloud', 'missing', 'mmsa', 'plan', 'report', 'mapped',
)  # fmt: skip


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
  """Long files first; pytest-xdist hands out files in this order."""
  place = {f'test_{name}.py': number for number, name in enumerate(_LONGEST)}
  items.sort(key=lambda item: place.get(item.path.name, len(place)))


def pytest_collection_finish() -> None:
  """What is imported by now stays."""
  gc.collect()
  gc.freeze()


_ROOT = Path(__file__).resolve().parent.parent


@pytest.fixture(scope='session')
def shared_data() -> Path:
  """Folder of data files that are not part of the repository; tests that need it are skipped where it is absent."""
  folder = Path(os.environ.get('DREAM_SHARED_DATA') or _ROOT.parent / 'shared' / 'data')
  if not folder.is_dir():
    pytest.skip(f'no data folder at {folder}; set DREAM_SHARED_DATA to one that holds av_digits/ and mosi/')
  return folder


@pytest.fixture(scope='session')
def root() -> Path:
  """The repository, where commands are run as the README writes them."""
  return _ROOT


class Command:
  """`python -m dream_jax.main`, as a user types it."""

  # A run of seconds on real data; the tests of the command line and of the notebook API share it.
  quick = (
    '--config=configs/digits.py:quick',
    '--config.train.epochs=1',
    '--config.train.num_evals=2',
    '--config.train.validation_draws=1',
    '--config.model.width=8',
    '--config.model.hidden=8',
    "--config.controls=('late+dropout', 'majority')",
    "--config.protocols=('modality/noise',)",
  )

  def __call__(self, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Runs it in the root of the repository."""
    environment = {name: value for name, value in os.environ.items() if name != 'XLA_FLAGS'}
    environment |= compile_cache.environment()
    command = [sys.executable, '-m', 'dream_jax.main', *arguments]
    return subprocess.run(command, capture_output=True, text=True, cwd=_ROOT, env=environment, timeout=600)


@pytest.fixture(scope='session')
def command() -> Command:
  """Runs the command line."""
  return Command()


@pytest.fixture(scope='session')
def trained(command, tmp_path_factory) -> tuple[Path, 'subprocess.CompletedProcess[str]']:
  """(workdir, finished process) of a small training on digits; tests that change the workdir copy it first.

  Processes that share the tests train it once: the first to come does, the other waits.
  """
  own = tmp_path_factory.mktemp('trained')
  folder = own.parent.parent / 'trained' if 'PYTEST_XDIST_WORKER' in os.environ else own
  folder.mkdir(exist_ok=True)
  workdir, said = folder / 'run', folder / 'said.json'
  with open(folder / 'lock', 'w') as lock:
    fcntl.flock(lock, fcntl.LOCK_EX)
    if not said.exists():
      done = command(*command.quick, f'--workdir={workdir}')
      said.write_text(json.dumps([done.args, done.returncode, done.stdout, done.stderr]))
  return workdir, subprocess.CompletedProcess(*json.loads(said.read_text()))


@pytest.fixture(scope='session')
def bucket():
  """An empty bucket on this machine; from here on every client of Cloud Storage, also of commands, goes there."""
  with bucket_world.serve() as (url, contents):
    os.environ.update(bucket_world.environment(url))
    yield contents
