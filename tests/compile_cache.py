"""What tests compile is compiled once: by whichever process of theirs comes first, for all that come after."""

import atexit
import os
import shutil
import tempfile

_FOLDER = 'DREAM_TEST_COMPILED'


def folder() -> str:
  """The folder that all processes of these tests share; it goes with the first of them, unless the user named it."""
  if _FOLDER not in os.environ:
    made, owner = tempfile.mkdtemp(prefix='dream_jax_compiled_'), os.getpid()
    atexit.register(lambda: os.getpid() == owner and shutil.rmtree(made, ignore_errors=True))
    os.environ[_FOLDER] = made  # Workers of pytest-xdist and commands inherit it.
  return os.environ[_FOLDER]


def environment() -> dict[str, str]:
  """Of a command that reads and writes this folder; what took under .2 s is not worth the disk."""
  return {'JAX_COMPILATION_CACHE_DIR': folder(), 'JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS': '0.2'}
