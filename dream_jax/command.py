"""What every command owes its user: an exit code that says whose fault it was, and one line instead of a traceback.

0: done, or stopped by SIGTERM with everything saved. 2: the user's input is wrong, told in one line. 1: a fault of
ours, with a traceback. 130: interrupted; in the middle of a training with everything saved.
"""

import contextlib
import os
import signal
import sys
from collections.abc import Callable
from typing import Any

from dream_jax import disk
from dream_jax.errors import Interrupted, Preempted, UserError


def exit_code(command: Callable[[], None], *, writes_to: str, after_interrupt: str = '') -> int:
  """Runs a command and turns what goes wrong into its exit code.

  Args:
    command: does the work and prints.
    writes_to: the flag that names another place to write to, for a disk that is full or read-only.
    after_interrupt: what the user should know after Ctrl-C.
  """
  # TensorFlow and absl announce themselves at length otherwise; what matters is raised or printed by us.
  os.environ.setdefault('TF_CPP_MIN_LOG_LEVEL', '3')
  disk.speak_once()
  try:
    command()
  except UserError as error:
    return _refuse(str(error))
  except Interrupted as stop:
    print(f'{stop}{after_interrupt}', file=sys.stderr)
    return 130
  except Preempted as stop:
    print(f'{stop}{after_interrupt}', flush=True)
  except KeyboardInterrupt:
    print(f'\ninterrupted{after_interrupt}', file=sys.stderr)
    return 130
  except Exception as error:
    refused = disk.refusal(error)
    if refused is None:
      raise
    where = refused.filename or 'no file named'
    return _refuse(f'{refused.strerror}: {where}; make room there or choose another {writes_to}')
  return 0


def end_at_interrupt(after_interrupt: str = '') -> None:
  """Makes Ctrl-C end this process at once, with one line; for a process that is nothing but a command.

  A KeyboardInterrupt would appear wherever the interpreter happens to be, and libraries swallow it, turn it into an
  error of theirs or crash. What has something to save first listens itself, see `parallel.hosts`. A shell may have
  started this in the background with SIGINT ignored: so it stays.

  Args:
    after_interrupt: what the user should know.
  """

  def end(*_: Any) -> None:
    with contextlib.suppress(Exception):  # Whoever was writing just now cannot be written to.
      sys.stdout.flush()
    with contextlib.suppress(OSError):
      os.write(2, f'\ninterrupted{after_interrupt}\n'.encode())
    os._exit(130)

  if signal.getsignal(signal.SIGINT) != signal.SIG_IGN:
    signal.signal(signal.SIGINT, end)


def _refuse(message: str) -> int:
  print(f'dream_jax: {" ".join(message.split())}', file=sys.stderr)
  return 2
