"""Reads pickles of arrays without running what they contain.

A pickle is a program: loading one from the internet runs it. This reader knows the few names that arrays, numbers,
strings and containers need, hands out those objects itself, and refuses any other before it is imported or called.
"""

import pickle
from typing import Any

import numpy as np
from numpy._core.multiarray import _reconstruct, scalar
from numpy._core.numeric import _frombuffer  # pyright: ignore[reportAttributeAccessIssue]  # Private: not in the stubs.

from dream_jax.errors import UserError


class _RefusedError(pickle.UnpicklingError):
  """The pickle asks for something that arrays do not need."""


def _encode(text: str, encoding: str = 'latin1') -> bytes:
  """Stands for `_codecs.encode`, by which protocol 2 spells bytes; other codecs are not needed."""
  if encoding not in ('latin1', 'latin-1'):
    raise _RefusedError(f'_codecs.encode with encoding {encoding!r}')
  return text.encode('latin1')


_BUILTINS = (list, dict, tuple, set, frozenset, str, bytes, bytearray, int, float, bool, complex)
_ALLOWED: dict[tuple[str, str], Any] = {
  ('numpy', 'ndarray'): np.ndarray,
  ('numpy', 'dtype'): np.dtype,
  ('_codecs', 'encode'): _encode,
  ('__builtin__', 'unicode'): str,
  ('__builtin__', 'long'): int,
}
for _core in ('numpy.core', 'numpy._core'):  # The name before and since NumPy 2.
  _ALLOWED[f'{_core}.multiarray', '_reconstruct'] = _reconstruct
  _ALLOWED[f'{_core}.multiarray', 'scalar'] = scalar
  _ALLOWED[f'{_core}.numeric', '_frombuffer'] = _frombuffer
for _type in _BUILTINS:
  _ALLOWED['builtins', _type.__name__] = _ALLOWED['__builtin__', _type.__name__] = _type


class _ArrayUnpickler(pickle.Unpickler):
  """An unpickler that knows the names in `_ALLOWED` and no other."""

  def find_class(self, module: str, name: str) -> Any:
    try:
      return _ALLOWED[module, name]
    except KeyError:
      raise _RefusedError(f'{module}.{name}') from None


def load_arrays(path: str) -> Any:
  """Content of a pickle made of containers, arrays, strings and numbers.

  Args:
    path: file to read; pickles of Python 2 are read as latin1.

  Raises:
    UserError: the pickle names anything else (nothing of it has run), holds arrays of objects other than strings, or is
      truncated or no pickle at all.
  """
  try:
    with open(path, 'rb') as file:
      content = _ArrayUnpickler(file, encoding='latin1').load()
    _refuse_objects(content)
  except _RefusedError as error:
    raise UserError(
      f'{path} asks for {error}, which a file of arrays does not need; nothing of it was run: use the published file'
    ) from None
  except Exception as error:  # Damaged bytes make pickle and NumPy raise nearly anything.
    reason = ' '.join(str(error).split())[:120] or type(error).__name__
    message = f'{path} cannot be read as a pickle ({reason}); it is damaged or incomplete: fetch it again'
    raise UserError(message) from error
  return content


def _refuse_objects(content: Any) -> None:
  """Raises _RefusedError for arrays of objects that are not all strings."""
  if isinstance(content, dict):
    for value in content.values():
      _refuse_objects(value)
  elif isinstance(content, list | tuple | set | frozenset):
    for value in content:
      _refuse_objects(value)
  elif isinstance(content, np.ndarray) and content.dtype.hasobject and not _all_strings(content):
    raise _RefusedError('an array of Python objects')


def _all_strings(values: np.ndarray) -> bool:
  return values.dtype == object and all(isinstance(value, str) for value in values.flat)
