"""What stands in for the names that a pickle of arrays asks for: nothing that a file says reaches NumPy unchecked.

A dtype is a number, a boolean or a fixed-width string, and a shape must fit the bytes that are there. Messages show of
a value no more than its type unless it is short: a list of lists may stand for more text than any memory holds.
"""

import math
import pickle
import re
from typing import Any

import numpy as np

_PLAIN_DTYPE = re.compile(r'[?bhilqBHILQefdg]|[biuf][1248]|f16|[SU][0-9]{1,9}|O8')
_NUMPY = ('numpy.core', 'numpy._core')  # The name before and since NumPy 2.
_MOST_AXES = 32
_PLAIN = (str, bytes, int, float, complex, type(None))
_KEY_BITS = 60  # Below, whole numbers hash to themselves; above, any number of them can be made to hash to one value.


class RefusedError(pickle.UnpicklingError):
  """The pickle asks for something that arrays do not need."""


class Bytes:
  """Bytes of the file that were not read: `size` from `offset`, as they are or as UTF-8 of latin-1 characters."""

  def __init__(self, offset: int, size: int, *, encoded: bool = False):
    self.offset, self.size, self.encoded = offset, size, encoded

  def __len__(self) -> int:
    return self.size


class DType:
  """Stands for `numpy.dtype`: checked by name, its byte order set by the state that follows."""

  def __init__(self, name: Any = None, *unused: Any):
    del unused
    if not isinstance(name, str) or not _PLAIN_DTYPE.fullmatch(name):
      raise RefusedError(f'numpy.dtype({_shown(name)})')
    self.value = np.dtype(name)

  def set_state(self, state: Any) -> None:
    # (version, byte order, sub-array, field names, fields, ...)
    if not isinstance(state, tuple) or len(state) < 5 or any(part is not None for part in state[2:5]):
      raise RefusedError('a structured numpy.dtype')
    order = state[1].decode('ascii') if isinstance(state[1], bytes) else state[1]
    if isinstance(order, str) and order in ('<', '>'):
      self.value = self.value.newbyteorder(order)


class Array:
  """Stands for `numpy.ndarray` until its shape, dtype and bytes are known."""

  def __init__(self, shape: Any = None, dtype: Any = None, fortran: Any = False, content: Any = None):
    self.shape, self.dtype, self.fortran = shape, dtype, fortran
    self.content = content  # Text stands for the bytes of Python 2.

  def set_state(self, state: Any) -> None:
    # (version, shape, dtype, whether Fortran-ordered, bytes or list of objects); older pickles leave the version out.
    if not isinstance(state, tuple) or len(state) not in (4, 5):
      raise ValueError('an array with an unknown state')
    self.shape, self.dtype, self.fortran, self.content = state[-4:]

  def checked(self) -> tuple[tuple[int, ...], np.dtype]:
    """Shape and dtype; raises ValueError where they do not fit the content."""
    shape = self.shape
    if not isinstance(shape, tuple) or len(shape) > _MOST_AXES or any(type(n) is not int or n < 0 for n in shape):
      raise ValueError(f'an array of shape {_shown(shape)}')
    if not isinstance(self.dtype, DType):
      raise ValueError('an array without dtype')
    dtype, count, content = self.dtype.value, math.prod(shape), self.content
    if dtype.hasobject:
      if not isinstance(content, list) or not all(isinstance(v, str) for v in content):
        raise RefusedError('an array of Python objects')
      fits = len(content) == count
    elif isinstance(content, Bytes) and content.encoded:  # One or two bytes of UTF-8 each: counted when decoded.
      fits = count * dtype.itemsize <= content.size <= 2 * count * dtype.itemsize
    elif isinstance(content, bytes | str | Bytes):
      fits = len(content) == count * dtype.itemsize
    else:
      raise ValueError('an array without bytes')
    if not fits or (count and not dtype.itemsize):
      raise ValueError(f'an array of shape {shape} does not fit its content')
    return shape, dtype

  @property
  def stays(self) -> bool:
    """Whether its bytes can stay in the file: they are there as they are, row by row."""
    return isinstance(self.content, Bytes) and not self.content.encoded and not self.fortran and bool(self.shape)

  def nbytes(self) -> int:
    """How many bytes it holds."""
    shape, dtype = self.checked()
    return math.prod(shape) * dtype.itemsize


def _shown(value: Any) -> str:
  """A value for a message, by its type where it might be long."""
  if isinstance(value, tuple) and len(value) <= 8 and all(isinstance(v, _PLAIN) for v in value):
    return f'({", ".join(_shown(v) for v in value)})'
  return repr(value)[:60] if isinstance(value, _PLAIN) else f'<{type(value).__name__}>'


def _reconstruct(kind: Any, *unused: Any) -> Array:
  """Stands for NumPy's function of this name, which makes an empty array for the state to fill."""
  del unused
  if kind is not Array:
    raise RefusedError('an array of another class')
  return Array()


def _scalar(dtype: Any, content: Any = None) -> Any:
  """Stands for NumPy's function of this name: one number or string."""
  if isinstance(content, str):
    content = content.encode('latin1')
  if not isinstance(dtype, DType) or dtype.value.hasobject or not isinstance(content, bytes):
    raise RefusedError('a scalar that is no number')
  if len(content) != dtype.value.itemsize:
    raise ValueError(f'a scalar of {len(content)} bytes')
  return np.frombuffer(content, dtype.value)[0].item()


def _from_buffer(content: Any, dtype: Any, shape: Any, order: Any) -> Array:
  """Stands for NumPy's `_frombuffer`, by which protocol 5 spells arrays."""
  return Array(shape, dtype, isinstance(order, str) and order == 'F', content)


def _encode(text: Any, encoding: Any = 'latin1') -> Any:
  """Stands for `_codecs.encode`, by which protocol 2 spells bytes; other codecs are not needed."""
  if not isinstance(encoding, str) or encoding not in ('latin1', 'latin-1'):
    raise RefusedError(f'_codecs.encode with encoding {_shown(encoding)}')
  return Bytes(text.offset, text.size, encoded=True) if isinstance(text, Bytes) else text.encode('latin1')


def _dict(*arguments: Any) -> dict:
  """Stands for `OrderedDict` and `defaultdict`; the entries follow, or come as a list of pairs from Python 2."""
  if not arguments or not isinstance(arguments[-1], list):
    return {}
  result: dict = {}
  for pair in arguments[-1]:
    if not isinstance(pair, tuple | list) or len(pair) != 2:
      raise ValueError('a dict of something else than pairs')
    add_entry(result, *pair)
  return result


def _bytes(content: Any = b'', *unused: Any) -> bytes:
  """Stands for `bytes` and `bytearray`, which given a number would make as many zeros."""
  if unused or not isinstance(content, bytes):
    raise RefusedError('bytes(...) of something else than bytes')
  return content


def _complex(real: Any = 0.0, imaginary: Any = 0.0) -> complex:
  """Stands for `complex`, which could be given any text."""
  if not isinstance(real, int | float) or not isinstance(imaginary, int | float):
    raise RefusedError('complex(...) of something else than numbers')
  return complex(real, imaginary)


def _list(content: Any = ()) -> list:
  """Stands for `list`."""
  return list(_container(content))


def _set(content: Any = ()) -> set:
  """Stands for `set`."""
  result: set = set()
  add_members(result, _container(content))
  return result


def _frozenset(content: Any = ()) -> frozenset:
  """Stands for `frozenset`."""
  return frozenset(_set(content))


def _container(content: Any) -> Any:
  if not isinstance(content, list | tuple | set | frozenset):
    raise RefusedError(f'a container made of {_shown(content)}')
  return content


def add_entry(entries: dict, key: Any, value: Any) -> None:
  """Puts one entry into a dict.

  Raises:
    RefusedError: a key that is no text or number.
    ValueError: a key that is there already, which no writer of pickles leaves behind.
  """
  if _hashed_at_once(key) in entries:
    raise ValueError(f'the key {_shown(key)} twice in one dict')
  entries[key] = value


def add_members(members: set, values: Any) -> None:
  """Puts values into a set.

  Raises:
    RefusedError: a value that is no text or number.
  """
  for value in values:
    members.add(_hashed_at_once(value))


def _hashed_at_once(value: Any) -> Any:
  """The value; others than these may take for ever to hash, such as tuples of tuples, or to be told apart."""
  if not isinstance(value, str | bytes | int | float | None) or (
    isinstance(value, int) and value.bit_length() > _KEY_BITS
  ):
    raise RefusedError(f'a key that is no text or small number ({_shown(value)})')
  return value


ALLOWED: dict[tuple[str, str], Any] = {
  ('numpy', 'ndarray'): Array,
  ('numpy', 'dtype'): DType,
  ('_codecs', 'encode'): _encode,
  ('collections', 'OrderedDict'): _dict,
  ('collections', 'defaultdict'): _dict,
}
for _core in _NUMPY:
  ALLOWED[f'{_core}.multiarray', '_reconstruct'] = _reconstruct
  ALLOWED[f'{_core}.multiarray', 'scalar'] = _scalar
  ALLOWED[f'{_core}.numeric', '_frombuffer'] = _from_buffer
for _builtins in ('builtins', '__builtin__'):
  for _name, _function in (
    ('set', _set),
    ('frozenset', _frozenset),
    ('complex', _complex),
    ('list', _list),
    ('dict', _dict),
    ('bytes', _bytes),
    ('bytearray', _bytes),
  ):
    ALLOWED[_builtins, _name] = _function
