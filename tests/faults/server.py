"""Children of a process that has imported everything: a command starts in milliseconds and dies alone.

A start of Python costs seconds of imports; a thousand kills would be hours of it. `multiprocessing`'s fork server
imports `warm` once. Each child leads a session of its own, writes into a file of its own and can be killed with all
that it started.
"""

import contextlib
import ctypes
import dataclasses
import faulthandler
import importlib
import json
import multiprocessing
import os
import resource
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]


def _context() -> Any:
  """The fork server; it starts with the first child."""
  context = multiprocessing.get_context('forkserver')
  context.set_forkserver_preload(['faults.warm'])
  here = os.pathsep.join((str(ROOT), str(ROOT / 'tests')))
  if here not in os.environ.get('PYTHONPATH', ''):  # The only way to tell the server where to look.
    os.environ['PYTHONPATH'] = os.pathsep.join(filter(None, (here, os.environ.get('PYTHONPATH'))))
  return context


@dataclasses.dataclass(frozen=True)
class Limits:
  """What a child may use: bytes of address space, and of one file; None for no limit."""

  memory: int | None = None
  file: int | None = None


class Child:
  """A function at work in a process of its own.

  Attributes:
    output: the file with what it printed.
    born: when, by the clock of files.
  """

  def __init__(
    self,
    function: Callable[..., Any],
    *args: Any,
    output: Path,
    environment: Mapping[str, str | None] | None = None,
    limits: Limits = Limits(),  # Frozen.
  ):
    """Starts it.

    Args:
      function: of a module that can be imported; it returns JSON's types for `value`, or leaves with an exit code.
      args: its arguments.
      output: file for what it prints.
      environment: variables that differ from the server's; None removes one.
      limits: of its resources.
    """
    self.output = output
    output.parent.mkdir(parents=True, exist_ok=True)
    name = f'{function.__module__}:{function.__qualname__}'
    self._process = _context().Process(target=_enter, args=(name, args, str(output), dict(environment or {}), limits))
    self._process.start()
    self.born = time.time()

  def wait(self, seconds: float | None = None) -> int | None:
    """The exit code, negative for a signal; None when it is still at work after so many seconds."""
    self._process.join(seconds)
    return self._process.exitcode

  def send(self, number: int) -> None:
    """A signal to it, and SIGKILL to all that it started too."""
    with contextlib.suppress(ProcessLookupError):
      (os.killpg if number == signal.SIGKILL else os.kill)(self._process.pid, number)

  def stop(self) -> None:
    """Kills what hangs, after it has said where it is."""
    self.send(signal.SIGUSR1)
    self._process.join(0.5)
    self.send(signal.SIGKILL)
    self._process.join(10)

  @property
  def text(self) -> str:
    """What it printed so far."""
    return self.output.read_text(errors='replace') if self.output.exists() else ''

  @property
  def value(self) -> Any:
    """What the function returned."""
    return json.loads(_value_of(self.output).read_text())


class Real:
  """`python -m dream_jax.main ARGV` as a user starts it, with the face of a `Child`: its imports can be struck too."""

  def __init__(self, argv: list[str], *, output: Path, environment: Mapping[str, str | None] | None = None):
    """Starts it."""
    self.output = output
    output.parent.mkdir(parents=True, exist_ok=True)
    merged = {**os.environ, 'JAX_PLATFORMS': 'cpu', 'XLA_FLAGS': None, **(environment or {})}
    kept = {key: value for key, value in merged.items() if value is not None}
    with open(output, 'w') as said:
      self._process = subprocess.Popen(
        [sys.executable, '-m', 'dream_jax.main', *argv],
        stdin=subprocess.DEVNULL,
        stdout=said,
        stderr=said,
        env=kept,
        cwd=ROOT,
        start_new_session=True,
      )
    self.born = time.time()

  def wait(self, seconds: float | None = None) -> int | None:
    """The exit code, negative for a signal; None when it is still at work after so many seconds."""
    try:
      return self._process.wait(seconds)
    except subprocess.TimeoutExpired:
      return None

  def send(self, number: int) -> None:
    """A signal to it."""
    self._process.send_signal(number)

  def stop(self) -> None:
    """Kills it."""
    self._process.kill()
    self._process.wait()

  @property
  def text(self) -> str:
    """What it printed so far."""
    return self.output.read_text(errors='replace')


def free_port() -> int:
  """A port that nobody listens to."""
  with socket.socket() as found:
    found.bind(('127.0.0.1', 0))
    return found.getsockname()[1]


def call(function: Callable[..., Any], *args: Any, output: Path, seconds: float = 300) -> Any:
  """What the function returns, JSON's types.

  Raises:
    RuntimeError: it raised, died, or did not come back.
  """
  child = Child(function, *args, output=output)
  code = child.wait(seconds)
  if code != 0:
    child.stop()
    raise RuntimeError(f'{function.__name__} ended with {code}: {child.text[-2000:]}')
  return child.value


def command(argv: list[str]) -> None:
  """Does what `python -m dream_jax.main ARGV` does, and ends this process as that would."""
  from dream_jax import main

  main.as_process(['main', *argv])


def _value_of(output: Path) -> Path:
  return output.with_suffix('.value')


def _enter(name: str, args: tuple[Any, ...], output: str, environment: dict[str, str | None], limits: Limits) -> None:
  """The first steps of a child."""
  os.setsid()
  if sys.platform == 'linux':
    ctypes.CDLL(None).prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG: nobody outlives the one who asked for it.
  where = os.open(output, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_APPEND)
  nowhere = os.open(os.devnull, os.O_RDONLY)
  for old, new in ((nowhere, 0), (where, 1), (where, 2)):
    os.dup2(old, new)
  sys.stdout = open(1, 'w', encoding='utf-8', closefd=False)  # noqa: SIM115  # As of a process whose output is a file.
  sys.stderr = open(2, 'w', encoding='utf-8', closefd=False, buffering=1)  # noqa: SIM115
  signal.signal(signal.SIGINT, signal.default_int_handler)  # A shell's & has it ignored.
  faulthandler.register(signal.SIGUSR1, file=sys.stderr)
  faulthandler.enable(file=sys.stderr)
  for key, value in environment.items():
    os.environ.pop(key, None) if value is None else os.environ.update({key: value})
  if limits.memory:
    resource.setrlimit(resource.RLIMIT_AS, (limits.memory, limits.memory))
  if limits.file is not None:
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)  # The write then fails with EFBIG.
    resource.setrlimit(resource.RLIMIT_FSIZE, (limits.file, limits.file))
  os.chdir(ROOT)
  module, _, function = name.partition(':')
  result = getattr(importlib.import_module(module), function)(*args)
  sys.stdout.flush()
  _value_of(Path(output)).write_text(json.dumps(result))
