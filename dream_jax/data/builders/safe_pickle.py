"""Reads pickles of arrays without running what they contain, and without loading the arrays.

A pickle is a program: loading one from the internet runs it. This reader knows the few names that arrays, numbers,
strings and containers need, stands its own functions in for them, and refuses any other before it is imported or
called. Nothing a file says reaches NumPy before it is checked: a dtype is a number, a boolean or a fixed-width string,
and a shape must fit the bytes that are there.

The bytes of a large array stay where they are: the result holds a `FileArray` that reads rows when asked.
"""

import math
import os
import pickle
import re
import struct
from typing import Any, ClassVar

import numpy as np

from dream_jax.data import memory
from dream_jax.data.builders.file_arrays import FileArray
from dream_jax.errors import UserError

_LAZY_BYTES = 1 << 14  # From here on, bytes are left in the file.
_CHUNK = 1 << 24
_PLAIN_DTYPE = re.compile(r'[?bhilqBHILQefdg]$|[biuf][1248]$|f16$|[SU]\d+$|O8$')
_NUMPY = ('numpy.core', 'numpy._core')  # The name before and since NumPy 2.


class _RefusedError(pickle.UnpicklingError):
  """The pickle asks for something that arrays do not need."""


class _Bytes:
  """Bytes of the file that were not read: `size` from `offset`, as they are or as UTF-8 of latin-1 characters."""

  def __init__(self, offset: int, size: int, *, encoded: bool = False):
    self.offset, self.size, self.encoded = offset, size, encoded

  def __len__(self) -> int:
    return self.size


class _DType:
  """Stands for `numpy.dtype`: checked by name, its byte order set by the state that follows."""

  def __init__(self, name: Any = None, *unused: Any):
    del unused
    if not isinstance(name, str) or not _PLAIN_DTYPE.match(name):
      raise _RefusedError(f'numpy.dtype({name!r})')
    self.value = np.dtype(name)

  def set_state(self, state: Any) -> None:
    # (version, byte order, sub-array, field names, fields, ...)
    if not isinstance(state, tuple) or len(state) < 5 or any(part is not None for part in state[2:5]):
      raise _RefusedError('a structured numpy.dtype')
    order = state[1].decode('ascii') if isinstance(state[1], bytes) else state[1]
    if order in ('<', '>'):
      self.value = self.value.newbyteorder(order)


class _Array:
  """Stands for `numpy.ndarray` until its shape, dtype and bytes are known."""

  def __init__(self, shape: Any = None, dtype: Any = None, fortran: Any = False, content: Any = None):
    self.shape, self.dtype, self.fortran = shape, dtype, fortran
    self.content = content.encode('latin1') if isinstance(content, str) else content  # Bytes of Python 2.

  def set_state(self, state: Any) -> None:
    # (version, shape, dtype, whether Fortran-ordered, bytes or list of objects); older pickles leave the version out.
    if not isinstance(state, tuple) or len(state) not in (4, 5):
      raise ValueError('an array with an unknown state')
    self.__init__(*state[-4:])

  def checked(self) -> tuple[tuple[int, ...], np.dtype]:
    """Shape and dtype; raises ValueError where they do not fit the content."""
    if not isinstance(self.shape, tuple) or any(type(n) is not int or n < 0 for n in self.shape):
      raise ValueError(f'an array of shape {self.shape}')
    if not isinstance(self.dtype, _DType):
      raise ValueError('an array without dtype')
    dtype, count, content = self.dtype.value, math.prod(self.shape), self.content
    if dtype.hasobject:
      if not isinstance(content, list) or not all(isinstance(v, str) for v in content):
        raise _RefusedError('an array of Python objects')
      fits = len(content) == count
    elif isinstance(content, _Bytes) and content.encoded:  # One or two bytes of UTF-8 each: counted when decoded.
      fits = count * dtype.itemsize <= content.size <= 2 * count * dtype.itemsize
    elif isinstance(content, bytes | _Bytes):
      fits = len(content) == count * dtype.itemsize
    else:
      raise ValueError('an array without bytes')
    if not fits:
      raise ValueError(f'an array of shape {self.shape} does not fit its content')
    return self.shape, dtype

  @property
  def stays(self) -> bool:
    """Whether its bytes can stay in the file: they are there as they are, row by row."""
    return isinstance(self.content, _Bytes) and not self.content.encoded and not self.fortran

  def load_bytes(self) -> int:
    """How many bytes of memory it takes to hand this array out."""
    shape, dtype = self.checked()
    return 0 if self.stays else math.prod(shape) * dtype.itemsize


def _reconstruct(kind: Any, *unused: Any) -> _Array:
  """Stands for NumPy's function of this name, which makes an empty array for the state to fill."""
  del unused
  if kind is not _Array:
    raise _RefusedError('an array of another class')
  return _Array()


def _scalar(dtype: Any, content: Any = None) -> Any:
  """Stands for NumPy's function of this name: one number or string."""
  if isinstance(content, str):
    content = content.encode('latin1')
  if not isinstance(dtype, _DType) or dtype.value.hasobject or not isinstance(content, bytes):
    raise _RefusedError('a scalar that is no number')
  if len(content) != dtype.value.itemsize:
    raise ValueError(f'a scalar of {len(content)} bytes')
  return np.frombuffer(content, dtype.value)[0].item()


def _from_buffer(content: Any, dtype: Any, shape: Any, order: Any) -> _Array:
  """Stands for NumPy's `_frombuffer`, by which protocol 5 spells arrays."""
  return _Array(shape, dtype, order == 'F', content)


def _encode(text: Any, encoding: Any = 'latin1') -> Any:
  """Stands for `_codecs.encode`, by which protocol 2 spells bytes; other codecs are not needed."""
  if encoding not in ('latin1', 'latin-1'):
    raise _RefusedError(f'_codecs.encode with encoding {encoding!r}')
  return _Bytes(text.offset, text.size, encoded=True) if isinstance(text, _Bytes) else text.encode('latin1')


def _dict(*arguments: Any) -> dict:
  """Stands for `OrderedDict` and `defaultdict`; the entries follow, or come as a list of pairs from Python 2."""
  return dict(arguments[-1]) if arguments and isinstance(arguments[-1], list) else {}


def _bytes(content: Any = b'', *unused: Any) -> bytes:
  """Stands for `bytes` and `bytearray`, which given a number would make as many zeros."""
  if unused or not isinstance(content, bytes | bytearray):
    raise _RefusedError('bytes(...) of something else than bytes')
  return bytes(content)


_ALLOWED: dict[tuple[str, str], Any] = {
  ('numpy', 'ndarray'): _Array,
  ('numpy', 'dtype'): _DType,
  ('_codecs', 'encode'): _encode,
  ('collections', 'OrderedDict'): _dict,
  ('collections', 'defaultdict'): _dict,
}
for _core in _NUMPY:
  _ALLOWED[f'{_core}.multiarray', '_reconstruct'] = _reconstruct
  _ALLOWED[f'{_core}.multiarray', 'scalar'] = _scalar
  _ALLOWED[f'{_core}.numeric', '_frombuffer'] = _from_buffer
for _builtins in ('builtins', '__builtin__'):
  for _type in (set, frozenset, complex, list, dict):
    _ALLOWED[_builtins, _type.__name__] = _type
  for _name in ('bytes', 'bytearray'):
    _ALLOWED[_builtins, _name] = _bytes


# The interpreter of pickle's opcodes is the standard library's own, in its Python form, whose methods can be replaced.
_Interpreter: Any = pickle._Unpickler  # pyright: ignore[reportAttributeAccessIssue]  # Not in the stubs.


class _ArrayUnpickler(_Interpreter):
  """An unpickler that knows the names in `_ALLOWED` and no other, and leaves large payloads in the file."""

  dispatch: ClassVar[dict[int, Any]] = dict(_Interpreter.dispatch)

  def __init__(self, path: str):
    self._size = os.path.getsize(path)
    self._file = open(path, 'rb')  # noqa: SIM115  # `load` closes it.
    super().__init__(self, encoding='latin1')  # The file interface below; pickles of Python 2 are latin1.

  def read(self, size: int) -> bytes:
    # A pickle may claim any length; memory for it is taken before it is read.
    if size > self._size - self._file.tell():
      raise EOFError('it ends too early')
    return self._file.read(size)

  def readinto(self, buffer: Any) -> int:
    buffer[:] = self.read(len(buffer))
    return len(buffer)

  def readline(self) -> bytes:
    return self._file.readline()

  def load(self) -> Any:
    with self._file:
      return super().load()

  def find_class(self, module: str, name: str) -> Any:
    try:
      return _ALLOWED[module, name]
    except KeyError:
      raise _RefusedError(f'{module}.{name}') from None

  def load_frame(self) -> None:
    self.read(8)  # Frames only help reading ahead; a file could claim one as large as itself.

  def load_build(self) -> None:
    state = self.stack.pop()
    if not isinstance(self.stack[-1], _Array | _DType):
      raise _RefusedError(f'a state for {type(self.stack[-1]).__name__}')
    self.stack[-1].set_state(state)

  def _payload(self, layout: str) -> Any:
    """The bytes that follow their length, or where they lie."""
    (size,) = struct.unpack(layout, self.read(struct.calcsize(layout)))
    if not 0 <= size <= self._size - self._file.tell():
      raise EOFError('it ends too early')
    if size < _LAZY_BYTES:
      return self.read(size)
    offset = self._file.tell()
    self._file.seek(size, os.SEEK_CUR)
    return _Bytes(offset, size)

  def _load_bytes(self, layout: str) -> None:
    self.append(self._payload(layout))

  def _load_text(self, layout: str, encoding: str) -> None:
    payload = self._payload(layout)
    self.append(payload if isinstance(payload, _Bytes) else str(payload, encoding, 'surrogatepass'))

  dispatch[pickle.FRAME[0]] = load_frame
  dispatch[pickle.BUILD[0]] = load_build
  dispatch[pickle.BINBYTES[0]] = lambda self: self._load_bytes('<I')
  dispatch[pickle.BINBYTES8[0]] = lambda self: self._load_bytes('<Q')
  dispatch[pickle.BYTEARRAY8[0]] = lambda self: self._load_bytes('<Q')
  dispatch[pickle.BINSTRING[0]] = lambda self: self._load_text('<i', 'latin1')
  dispatch[pickle.BINUNICODE[0]] = lambda self: self._load_text('<I', 'utf-8')
  dispatch[pickle.BINUNICODE8[0]] = lambda self: self._load_text('<Q', 'utf-8')


def load_arrays(path: str) -> Any:
  """Content of a pickle made of containers, arrays, strings and numbers.

  Large arrays come as `FileArray`. What has to be loaded (arrays in Fortran order or in the text form of protocol 2, at
  most as many bytes as the file has) is summed up first and refused where memory does not suffice.

  Args:
    path: file to read; pickles of Python 2 are read as latin1.

  Raises:
    UserError: the pickle names anything else (nothing of it has run), holds arrays of objects other than strings, is
      truncated or no pickle at all, or needs more memory than there is.
  """
  try:
    content = _ArrayUnpickler(path).load()
    shells = _find(content)
    memory.require(sum(shell.load_bytes() for shell in shells), f'reading {path}')
    made = {id(shell): _materialise(path, shell) for shell in shells}
    return _replaced(content, made, {})
  except UserError:
    raise
  except _RefusedError as error:
    asked = ' '.join(str(error).split())[:120]
    raise UserError(
      f'{path} asks for {asked}, which a file of arrays does not need; nothing of it was run: use the published file'
    ) from None
  except Exception as error:  # Damaged bytes make pickle and NumPy raise nearly anything.
    reason = ' '.join(str(error).split())[:120] or type(error).__name__
    message = f'{path} cannot be read as a pickle ({reason}); it is damaged or incomplete: fetch it again'
    raise UserError(message) from error


def _find(content: Any) -> list[_Array]:
  """Every array of a tree, each once; a part that occurs many times is looked at once."""
  found, seen, waiting = [], set(), [content]
  while waiting:
    part = waiting.pop()
    if id(part) in seen:
      continue
    seen.add(id(part))
    if isinstance(part, _Array):
      found.append(part)
    elif isinstance(part, dict):
      waiting.extend(part.values())
    elif isinstance(part, list | tuple | set | frozenset):
      waiting.extend(part)
    elif not isinstance(part, str | bytes | int | float | complex | None):
      raise _RefusedError(f'a {type(part).__name__.strip("_").lower()} outside an array')
  return found


def _materialise(path: str, shell: _Array) -> np.ndarray | FileArray:
  """The array of a shell: loaded if small, else left in the file where its order allows it."""
  shape, dtype = shell.checked()
  content = shell.content
  if dtype.hasobject:
    return np.array(content, dtype).reshape(shape)
  if isinstance(content, _Bytes):
    if shell.stays and math.prod(shape):
      return FileArray(path, content.offset, dtype, shape)
    content = _read(path, content)
  array = np.frombuffer(content, dtype)
  if array.size != math.prod(shape):
    raise ValueError(f'an array of shape {shape} and {len(content)} bytes')
  return np.ascontiguousarray(array.reshape(shape, order='F' if shell.fortran else 'C'))


def _read(path: str, part: _Bytes) -> bytearray:
  """The bytes of a part, decoded piece by piece where they are text."""
  result = bytearray()
  with open(path, 'rb') as file:
    file.seek(part.offset)
    left, rest = part.size, b''
    while left:
      piece = file.read(min(_CHUNK, left))
      left -= len(piece)
      if part.encoded:
        piece = rest + piece
        # A character of two bytes may be cut: its first byte waits for the second.
        cut = len(piece) - (piece[-1] >= 0xC0)
        piece, rest = piece[:cut].decode('utf-8').encode('latin1'), piece[cut:]
      result += piece
  return result


def _replaced(content: Any, made: dict[int, Any], done: dict[int, Any]) -> Any:
  """The tree with arrays in place of their shells; parts that occur twice stay one object."""
  if id(content) in done:
    return done[id(content)]
  if isinstance(content, _Array):
    return made[id(content)]
  if isinstance(content, dict):
    done[id(content)] = result = {}
    result.update((key, _replaced(value, made, done)) for key, value in content.items())
  elif isinstance(content, list):
    done[id(content)] = result = []
    result.extend(_replaced(value, made, done) for value in content)
  elif isinstance(content, tuple):
    done[id(content)] = result = tuple(_replaced(value, made, done) for value in content)
  else:
    return content
  return result
