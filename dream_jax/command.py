"""What every command owes its user: an exit code that says whose fault it was, and one line instead of a traceback.

0: done, or stopped by SIGTERM with everything saved. 2: the user's input is wrong, told in one line. 1: a fault of
ours, with a traceback. 130: interrupted.
"""

import errno
import os
import sys
from collections.abc import Callable

from dream_jax.errors import Preempted, UserError

# What the disk answers when it is the user's to mend: full, over quota, read-only, not theirs.
_DISK = (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES, errno.EPERM)


def exit_code(command: Callable[[], None], *, writes_to: str, after_interrupt: str = '') -> int:
  """Runs a command and turns what goes wrong into its exit code.

  Args:
    command: does the work and prints.
    writes_to: the flag that names another place to write to, for a disk that is full or read-only.
    after_interrupt: what the user should know after Ctrl-C.
  """
  # TensorFlow and absl announce themselves at length otherwise; what matters is raised or printed by us.
  os.environ.setdefault('TF_CPP_MIN_LOG_LEVEL', '3')
  try:
    command()
  except UserError as error:
    return _refuse(str(error))
  except OSError as error:
    if error.errno not in _DISK:
      raise
    return _refuse(
      f'{error.strerror}: {error.filename or "no file named"}; make room there or choose another {writes_to}'
    )
  except Preempted as stop:
    print(f'{stop}{after_interrupt}', flush=True)
  except KeyboardInterrupt:
    print(f'\ninterrupted{after_interrupt}', file=sys.stderr)
    return 130
  return 0


def _refuse(message: str) -> int:
  print(f'dream_jax: {" ".join(message.split())}', file=sys.stderr)
  return 2
