"""The command line: flags in, library calls out, and an exit code that says whose fault it was.

0: done. 2: the user's input is wrong, told in one line. 1: a fault of ours, with a traceback. 130: interrupted.
"""

import errno
import os
import sys
from collections.abc import Sequence

from absl import logging

from dream_jax import flags
from dream_jax.errors import UserError

# What the disk answers when it is the user's to mend: full, over quota, read-only, not theirs.
_DISK = (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES, errno.EPERM)


def run(arguments: flags.Arguments) -> None:
  """Does what the command line asks for."""
  if arguments.mode == 'help':
    print(flags.USAGE)
  elif arguments.mode == 'list':
    from dream_jax import listing

    listing.print_all()
  elif arguments.mode == 'report':
    from dream_jax.report import page

    page.write_report(arguments.workdir)
  else:
    from dream_jax import experiment

    action = experiment.train if arguments.mode == 'train' else experiment.evaluate
    action(arguments.config, arguments.workdir)


def main(argv: Sequence[str] | None = None) -> int:
  """The exit code of one command; `argv` is `sys.argv` unless given."""
  # TensorFlow and absl announce themselves at length otherwise; what matters is raised or printed by us.
  os.environ.setdefault('TF_CPP_MIN_LOG_LEVEL', '3')
  logging.set_verbosity(logging.ERROR)
  try:
    run(flags.parse(sys.argv if argv is None else argv))
  except UserError as error:
    return _refuse(str(error))
  except OSError as error:
    if error.errno not in _DISK:
      raise
    return _refuse(
      f'{error.strerror}: {error.filename or "no file named"}; make room there or choose another --workdir'
    )
  except KeyboardInterrupt:
    print('\ninterrupted; the same command continues where it stopped', file=sys.stderr)
    return 130
  return 0


def _refuse(message: str) -> int:
  print(f'dream_jax: {" ".join(message.split())}', file=sys.stderr)
  return 2


if __name__ == '__main__':
  sys.exit(main())
