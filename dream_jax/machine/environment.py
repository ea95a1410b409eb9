"""What the program takes from its surroundings: JAX's variables, XLA's flags, the operating system.

Results follow from the config and the data. A variable of JAX that says where to run, what to keep or what to log is
heard; any other (64-bit numbers, strict promotion, another generator, no compilation ...) stands there for another
program of the user: it is taken out before JAX is loaded, and the user is told.
"""

import contextlib
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

from dream_jax.errors import UserError
from dream_jax.machine import paths

# Beginnings of the names that are heard, behind JAX_.
_HEARD = (
  'COMPILATION_CACHE',
  'COMPILER_DETAILED_LOGGING',
  'COORDINAT',
  'CPU_',
  'CROSS_HOST',
  'CUDA_VISIBLE_DEVICES',
  'DEBUG_LOG_MODULES',
  'DISTRIBUTED',
  'DUMP_IR',
  'ENABLE_COMPILATION_CACHE',
  'ENABLE_PREEMPTION_SERVICE',
  'ENABLE_RECOVERABILITY',
  'EXPLAIN_CACHE_MISSES',
  'FORCE_DCN',
  'INCLUDE_',
  'LOCAL_DEVICE_IDS',
  'LOG',
  'MOCK_',
  'NUM_CPU_DEVICES',
  'NUM_PROCESSES',
  'ONEAPI_VISIBLE_DEVICES',
  'PERSISTENT_CACHE',
  'PJRT_',
  'PLATFORM',
  'PROCESS_',
  'RAISE_PERSISTENT_CACHE',
  'ROCM_VISIBLE_DEVICES',
  'SHARE_BINARY',
  'TRACEBACK',
)
_CACHE = 'JAX_COMPILATION_CACHE_DIR'
# Of a process that only reads XLA's flags, seconds.
_PATIENCE = 60


def check_system() -> None:
  """Raises UserError on Windows, which lacks the locks of files that keep two processes apart."""
  if sys.platform == 'win32':
    raise UserError(
      'dream_jax does not run on Windows; expected Linux or macOS: use WSL (wsl --install) or a container'
    )


def settle() -> list[str]:
  """What was taken out, as NAME=VALUE, to make JAX deaf to whatever may change results.

  Where JAX is loaded already nothing is changed: the variables have had their effect.

  Raises:
    UserError: a variable that is heard says something that JAX does not understand.
  """
  if 'jax' in sys.modules:
    return []
  names = [name for name in os.environ if name.startswith('JAX_')]
  ignored = [f'{name}={os.environ.pop(name)}' for name in names if not name[4:].startswith(_HEARD)]
  if os.environ.get(_CACHE):
    os.environ[_CACHE] = paths.expanded(os.environ[_CACHE], _CACHE)
  heard = [name for name in names if name in os.environ]
  if heard:
    try:
      import jax  # noqa: F401
    except ValueError as error:
      named = [name for name in heard if name.lower() in str(error).lower()] or heard
      raise UserError(f'JAX cannot be loaded ({error}); correct or unset {" or ".join(named)}') from error
  return ignored


def check_xla_flags() -> None:
  """Raises UserError where XLA would end this process because of what stands in XLA_FLAGS; another one tries it."""
  flags = os.environ.get('XLA_FLAGS', '').strip()
  if not flags:
    return
  code = 'from jaxlib import xla_client; xla_client.make_cpu_client()'
  try:
    done = subprocess.run(
      [sys.executable, '-c', code], capture_output=True, text=True, errors='replace', timeout=_PATIENCE, check=False
    )
  except (OSError, subprocess.TimeoutExpired):
    return  # It says nothing about the flags.
  if done.returncode:
    said = re.findall(r'^F\d.*?\] (.+)$', done.stderr, re.MULTILINE) or done.stderr.splitlines()[-1:] or ['no reason']
    raise UserError(f'XLA_FLAGS={flags} cannot be used ({said[0].strip()[:200]}); correct or unset XLA_FLAGS')


@contextlib.contextmanager
def naming_platforms() -> Iterator[None]:
  """Turns what JAX raises where it finds no device into one line that names the variable that asked for it."""
  try:
    yield
  except (RuntimeError, AssertionError, ValueError) as error:
    asked = [f'{n}={os.environ[n]}' for n in ('JAX_PLATFORMS', 'JAX_PLATFORM_NAME') if os.environ.get(n)]
    reason = ' '.join(str(error).split())[:160]
    if asked:
      raise UserError(
        f'{" ".join(asked)}: there is no such device here{f" ({reason})" if reason else ""}; unset it, or install what'
        " it needs: pip install 'dream-jax[cuda12]' for NVIDIA GPUs, 'dream-jax[tpu]' for TPUs"
      ) from error
    if 'nable to initialize backend' in reason:
      raise UserError(f'JAX finds no device ({reason}); set JAX_PLATFORMS=cpu to compute on the CPU') from error
    raise


def start_devices() -> None:
  """Asks JAX for its devices for the first time.

  Raises:
    UserError: those that a variable asks for are not there.
  """
  import jax

  with naming_platforms():
    jax.devices()


def single_precision() -> Any:
  """A context in which JAX makes no 64-bit numbers, whatever a notebook has set."""
  import jax

  return jax.enable_x64(False)
