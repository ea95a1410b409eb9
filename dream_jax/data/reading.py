"""The edge between a file of the user and what reads it: whatever a reader raises becomes one line that names the file.

Damaged and crafted files make zip, pickle, HDF5, Parquet and NumPy raise nearly anything; a list of those kinds is
never complete. Text is decoded here as well: exactly, or not at all.
"""

import contextlib
from collections.abc import Iterator
from typing import Any

from dream_jax.errors import UserError

_MOST = 160  # Characters of what a reader said.


@contextlib.contextmanager
def naming(path: str, expected: str, remedy: str = 'write or fetch it again') -> Iterator[None]:
  """Turns whatever goes wrong while a file is read into one line; only reading may happen inside.

  Args:
    path: the file.
    expected: what it should be: 'an .npz file of numpy.savez'.
    remedy: what to do about a damaged one.

  Raises:
    UserError: instead of every other exception.
  """
  try:
    yield
  except UserError:
    raise
  except MemoryError as error:
    raise UserError(f'{path} asks for more memory than there is; expected {expected}: {remedy}') from error
  except OSError as error:
    if error.errno is None:  # Raised by a reader about what it read, not by the system.
      raise UserError(_damaged(path, expected, remedy, error)) from error
    raise UserError(f'{path} cannot be read ({error.strerror or said(error)}); expected {expected}') from error
  except Exception as error:
    raise UserError(_damaged(path, expected, remedy, error)) from error


def said(error: BaseException) -> str:
  """What an exception says, on one line and not too long."""
  text = ' '.join(str(error)[: 8 * _MOST].split())[:_MOST]
  return text if text and not isinstance(error, KeyError) else f'{type(error).__name__} {text}'.strip()


def exact_text(value: Any, where: str) -> str:
  """A text or a name as the file has it; bytes are UTF-8.

  Args:
    value: text or bytes; of names also whole numbers.
    where: the place for the message, such as 'FILE: id of row 3'.

  Raises:
    UserError: no text, or one that UTF-8 cannot write or NumPy cannot keep: decoded somehow, two ids could become one.
  """
  if isinstance(value, bytes):
    try:
      value = value.decode('utf-8')
    except UnicodeDecodeError as error:
      raise UserError(f'{where} is {value[:40]!r}, which is not UTF-8 ({error.reason}); write it as UTF-8') from None
  elif isinstance(value, int) and not isinstance(value, bool):
    value = str(value)
  if not isinstance(value, str):
    raise UserError(f'{where} is a {type(value).__name__}; expected text')
  if not value.isascii() and any('\ud800' <= c <= '\udfff' for c in value):
    raise UserError(f'{where} is {value[:40]!r}, which has half a character in it; write it as UTF-8')
  if value.endswith('\0'):
    raise UserError(f'{where} is {value[:40]!r}; expected text without zero bytes at its end')
  return str(value)  # NumPy's own strings are subclasses.


def _damaged(path: str, expected: str, remedy: str, error: Exception) -> str:
  return f'{path} cannot be read as {expected} ({said(error)}); it is damaged or incomplete: {remedy}'
