"""Runs pytest in children of a process that has imported everything but the package: most of a short run is imports.

  python -m faults.code.forks      # reads a line of JSON, [seconds, file for the output, arguments of pytest...]

Answers each line with the exit code of pytest, or -1 where it took longer than the seconds given.
"""

import contextlib
import importlib
import json
import os
import signal
import sys
import time

# As `conftest.py` sets them, which comes too late for what is imported here.
os.environ['JAX_PLATFORMS'] = 'cpu'
os.environ['TF_CPP_MIN_LOG_LEVEL'] = '3'
os.environ['MPLBACKEND'] = 'Agg'
_MODULES = (
  *('pytest', 'hypothesis', 'flax.linen', 'flax.struct', 'jax.numpy', 'ml_collections', 'optax', 'orbax.checkpoint'),
  *('scipy.optimize', 'scipy.stats', 'sklearn.metrics', 'tensorflow', 'tensorflow_datasets'),
)


def main() -> None:
  """Answers until the input ends."""
  answers = os.fdopen(os.dup(1), 'w', buffering=1)
  os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
  for name in _MODULES:
    importlib.import_module(name)
  for line in sys.stdin:
    limit, output, *arguments = json.loads(line)
    child = os.fork()
    if not child:
      _child(output, arguments)
    print(_wait(child, limit), file=answers)


def _child(output: str, arguments: list[str]) -> None:
  os.setsid()
  where = os.open(output, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_APPEND)
  os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
  os.dup2(where, 1)
  os.dup2(where, 2)
  code = 3  # pytest's word for an error of its own.
  with contextlib.suppress(BaseException):
    import pytest

    code = int(pytest.main(arguments))
  sys.stdout.flush()
  os._exit(code)


def _wait(child: int, limit: float) -> int:
  end = time.monotonic() + limit
  while time.monotonic() < end:
    done, status = os.waitpid(child, os.WNOHANG)
    if done:
      return os.waitstatus_to_exitcode(status)
    time.sleep(0.05)
  with contextlib.suppress(ProcessLookupError):
    os.killpg(child, signal.SIGKILL)
  os.waitpid(child, 0)
  return -1


if __name__ == '__main__':
  main()
