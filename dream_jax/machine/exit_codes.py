"""What every command owes its user: an exit code that says whose fault it was, and one line instead of a traceback.

0: done, or stopped by SIGTERM with everything saved. 2: the user's input is wrong, or the machine lacks what the
command needs; one line says what. 1: a fault of ours, with a traceback. 130: interrupted; in the middle of a training
with everything saved. 141: nobody reads the output any more, as after `| head`.
"""

import codecs
import contextlib
import errno
import logging
import os
import sys
from collections.abc import Callable

from dream_jax.errors import Interrupted, Preempted, UserError, one_line
from dream_jax.machine import disk, environment

# What else the system answers that is the user's to mend, and how; {flag} names another place to write to.
_PLACE = 'choose another {flag}'
_MOUNT = 'check the disk or the mount, or choose another {flag}'
_ADVICE = {
  **dict.fromkeys((errno.ELOOP, errno.ENAMETOOLONG, errno.ENOTDIR), _PLACE),
  **dict.fromkeys((errno.EIO, errno.ESTALE, errno.ETIMEDOUT, errno.ENODEV, errno.ENXIO, errno.ENOTCONN), _MOUNT),
  **dict.fromkeys((errno.EMFILE, errno.ENFILE), 'allow more open files: ulimit -n 4096'),
  errno.ENOMEM: 'close other programs, or use a machine with more memory',
}
_SMALLER = 'a smaller train.batch_size, num_seeds, model.width or eval_batch_size needs less, and so do fewer samples'
# What reads nested text by calling itself.
_PARSERS = ('ast', 'json', 'tomllib')
# Signs of our tables that a terminal without Unicode cannot show.
_PLAIN = {'±': '+-', '–': '-', '’': "'", '“': '"', '”': '"', '∆': 'd', '≥': '>=', '≤': '<=', '×': 'x', '…': '...'}


def exit_code(command: Callable[[], None], *, writes_to: str, after_interrupt: str = '') -> int:
  """Runs a command and turns what goes wrong into its exit code.

  Args:
    command: does the work and prints.
    writes_to: the flag that names another place to write to, for a disk that is full or read-only.
    after_interrupt: what the user should know after Ctrl-C.
  """
  # TensorFlow and absl announce themselves at length otherwise; what matters is raised or printed by us.
  os.environ.setdefault('TF_CPP_MIN_LOG_LEVEL', '3')
  logging.getLogger('matplotlib').setLevel(logging.ERROR)  # It complains where a home cannot be written to.
  disk.speak_once()
  _replace_signs()
  try:
    environment.check_system()
    _check_current_folder()
    command()
    if sys.stdout is not None:  # As after >&-.
      sys.stdout.flush()
  except UserError as error:
    return _refuse(str(error))
  except BrokenPipeError:
    _print_no_more()
    return 141
  except Interrupted as stop:
    print(f'{stop}{after_interrupt}', file=sys.stderr)
    return 130
  except Preempted as stop:
    print(f'{stop}{after_interrupt}', flush=True)
  except KeyboardInterrupt:
    print(f'\ninterrupted{after_interrupt}', file=sys.stderr)
    return 130
  except Exception as error:
    message = _not_ours(error, writes_to)
    if message is None:
      raise
    return _refuse(message)
  return 0


def _not_ours(error: Exception, writes_to: str) -> str | None:
  """What to tell the user where the machine or the input is at fault; None where we are."""
  refused = disk.refusal(error)
  if refused is not None:
    return f'{refused.strerror}: {refused.filename or "no file named"}; make room there or choose another {writes_to}'
  if isinstance(error, OSError):
    if error.errno in _ADVICE:
      where = error.filename or 'no file named'
      return f'{error.strerror}: {where}; {_ADVICE[error.errno].format(flag=writes_to)}'
    if error.errno == errno.ENOENT and 'temporary directory' in str(error.strerror):
      return f'{error.strerror}; set TMPDIR to a folder that can be written to'
  # A thread that cannot be started has found no memory for its stack.
  if isinstance(error, MemoryError) or any(sign in str(error) for sign in ('RESOURCE_EXHAUSTED', 'start new thread')):
    reason = (str(error).splitlines() or [''])[0][:160]
    return f'out of memory{f" ({reason})" if reason else ""}; {_SMALLER}'
  if isinstance(error, RecursionError):
    innermost = error.__traceback__
    while innermost and innermost.tb_next:
      innermost = innermost.tb_next
    module = innermost.tb_frame.f_globals.get('__name__', '') if innermost else ''
    if module.partition('.')[0] in _PARSERS:
      return f'some input is nested too deeply to be read (by {module}); expected a few levels of brackets'
  return None


def _check_current_folder() -> None:
  try:
    os.getcwd()
  except FileNotFoundError:
    raise UserError('the current folder does not exist any more; go to another one with cd') from None


def _replace_signs() -> None:
  """Lets output in an encoding that lacks a sign show something like it, instead of failing."""
  codecs.register_error('dream_jax', _plain)
  for stream in (sys.stdout, sys.stderr):
    reconfigure = getattr(stream, 'reconfigure', None)  # Not there where a notebook or a test has the output.
    if reconfigure is not None:
      reconfigure(errors='dream_jax')


def _plain(error: UnicodeError) -> tuple[str, int]:
  if not isinstance(error, UnicodeEncodeError):
    raise error
  signs = error.object[error.start : error.end]
  return ''.join(_PLAIN.get(s, s.encode('ascii', 'backslashreplace').decode('ascii')) for s in signs), error.end


def _print_no_more() -> None:
  """Sends what is still to be written nowhere; Python would complain about it when it ends."""
  with contextlib.suppress(OSError, ValueError, AttributeError):
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _refuse(message: str) -> int:
  with contextlib.suppress(OSError):  # Nobody listens.
    print(f'dream_jax: {one_line(message)}', file=sys.stderr)
  return 2
