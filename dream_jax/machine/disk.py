"""What a disk refuses, in one message: it is full, over quota, read-only or not the user's.

Libraries write in threads of their own. They hand the error on to whoever waits for them and print it besides, some a
traceback for every array.
"""

import errno
import functools
import logging
import os
import re
import sys
import threading
from collections.abc import Iterator
from typing import Any

# What is the user's to mend; anything else is a fault of the machine or of ours.
_REFUSALS = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EACCES, errno.EPERM)


def refusal(error: BaseException | None) -> OSError | None:
  """The disk's refusal that an exception is, or was caused by; None where there is none."""
  return next((found for found in map(_as_os_error, _causes(error)) if found and found.errno in _REFUSALS), None)


def tensorstore_error(error: BaseException) -> OSError | None:
  """The OSError that TensorStore wrote into the text of another exception; None where there is none."""
  number = re.search(r"os_error_code='(\d+)'", str(error))
  return OSError(int(number[1]), os.strerror(int(number[1]))) if number else None


@functools.cache
def speak_once() -> None:
  """Keeps threads that are not ours from printing what the disk refused: it is raised to the main thread, too."""
  in_thread, nowhere = threading.excepthook, sys.unraisablehook

  def of_thread(args: Any) -> None:
    if refusal(args.exc_value) is None:
      in_thread(args)

  def of_nobody(args: Any) -> None:
    if refusal(args.exc_value) is None and not _is_late(args.exc_value):
      nowhere(args)

  threading.excepthook, sys.unraisablehook = of_thread, of_nobody
  logging.getLogger('asyncio').addFilter(lambda record: not (record.exc_info and refusal(record.exc_info[1])))


def _causes(error: BaseException | None) -> Iterator[BaseException]:
  seen: list[BaseException] = []
  while error is not None and error not in seen:
    seen.append(error)
    yield error
    error = error.__cause__ or error.__context__


def _as_os_error(error: BaseException) -> OSError | None:
  if isinstance(error, OSError) and error.errno is not None:
    return error
  return tensorstore_error(error) or _tensorflow_error(error)


def _tensorflow_error(error: BaseException) -> OSError | None:
  """What TensorFlow and TFDS say in words alone."""
  if 'Not enough disk space' in str(error):
    return OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
  codes = (errno.ENOSPC, errno.EDQUOT, errno.EROFS)
  return next((OSError(code, os.strerror(code)) for code in codes if os.strerror(code) in str(error)), None)


def _is_late(error: BaseException | None) -> bool:
  """Whether a thread of C++ had an answer for a save that was given up meanwhile."""
  return isinstance(error, RuntimeError) and str(error) == 'Event loop is closed'
