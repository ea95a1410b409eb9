"""The strict room of every test: eight CPU devices, no silent dtype or rank promotion, our own warnings are errors."""

import os
from pathlib import Path

# Before the first import of jax: the number of devices is read once.
os.environ['JAX_PLATFORMS'] = os.environ.get('DREAM_TEST_PLATFORM', 'cpu')
_DEVICES = '--xla_force_host_platform_device_count'
if _DEVICES not in os.environ.get('XLA_FLAGS', ''):
  os.environ['XLA_FLAGS'] = f'{os.environ.get("XLA_FLAGS", "")} {_DEVICES}=8'.strip()
os.environ.setdefault('TF_CPP_MIN_LOG_LEVEL', '3')
# Forks of this process would inherit JAX's threads; Matplotlib would look for a display.
os.environ.setdefault('MPLBACKEND', 'Agg')

import jax  # noqa: E402
import pytest  # noqa: E402

jax.config.update('jax_numpy_dtype_promotion', 'strict')
jax.config.update('jax_numpy_rank_promotion', 'raise')

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
