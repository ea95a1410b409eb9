"""What Ctrl-C does before anyone listens to it: loads nothing, so that it can come before every other import."""

import contextlib
import os
import signal
import sys
from typing import Any

GO_ON = '; the same command continues where it stopped'


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
