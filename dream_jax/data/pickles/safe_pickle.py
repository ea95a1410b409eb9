"""Reads pickles of arrays without running what they contain, and without loading the arrays.

A pickle is a program: loading one from the internet runs it. This reader knows the few names that arrays, numbers,
strings and containers need, stands its own functions in for them (`stand_ins`), and refuses any other before it is
imported or called. It also keeps accounts: a program of a few bytes may ask for any amount of memory, so every step has
a price, and the file an allowance that grows with its size.

The bytes of a large array stay where they are: the result holds a `FileArray` that reads rows when asked.
"""

import math
import os
import pickle
import struct
import sys
from collections.abc import Callable
from typing import Any

import numpy as np

from dream_jax.data import reading
from dream_jax.data.pickles.file_arrays import FileArray
from dream_jax.data.pickles.stand_ins import ALLOWED, Array, Bytes, DType, RefusedError, add_entry, add_members
from dream_jax.data.pickles.unfolded import MOST_DEEP, arrays_of, with_arrays
from dream_jax.errors import UserError
from dream_jax.machine import memory

_LAZY_BYTES = 1 << 14  # From here on, bytes are left in the file.
_CHUNK = 1 << 24
_MOST_MARKS = 4 * MOST_DEEP
_MOST_ARGUMENTS = 8
_MOST_LINE = 1 << 28
_NUMBER_LINE, _NUMBER_BYTES = 64, 16  # The longest number, as text and as bytes.

# Bytes of memory that a file may take, and those for each byte of it: files of arrays stay far below.
_ALLOWANCE, _ALLOWANCE_PER_BYTE = 64 << 20, 48
# Prices in bytes of memory: a place on the stack, and with it what CPython takes for the object. Payloads come on top.
_STEP, _ENTRY = 16, 104
_PRICES = {
  80: (pickle.EMPTY_LIST, pickle.LIST, pickle.EMPTY_DICT, pickle.DICT, *(pickle.TUPLE, pickle.TUPLE1, pickle.TUPLE2)),
  96: (pickle.TUPLE3, pickle.BINFLOAT, pickle.FLOAT, pickle.BININT, pickle.BININT2, pickle.LONG1, pickle.LONG),
  128: (pickle.PUT, pickle.BINPUT, pickle.LONG_BINPUT, pickle.MEMOIZE),
  240: (pickle.MARK, pickle.EMPTY_SET, pickle.FROZENSET),
  512: (pickle.REDUCE,),
}
# What writes arrays, numbers, strings and containers in any protocol; instances of classes need others.
_OPCODES = b''.join(
  (
    *(pickle.PROTO, pickle.FRAME, pickle.STOP, pickle.MARK, pickle.POP, pickle.POP_MARK, pickle.DUP),
    *(pickle.NONE, pickle.NEWTRUE, pickle.NEWFALSE, pickle.INT, pickle.BININT, pickle.BININT1, pickle.BININT2),
    *(pickle.LONG, pickle.LONG1, pickle.LONG4, pickle.FLOAT, pickle.BINFLOAT, pickle.STRING, pickle.BINSTRING),
    *(pickle.SHORT_BINSTRING, pickle.BINBYTES, pickle.SHORT_BINBYTES, pickle.BINBYTES8, pickle.BYTEARRAY8),
    *(pickle.UNICODE, pickle.BINUNICODE, pickle.SHORT_BINUNICODE, pickle.BINUNICODE8),
    *(pickle.EMPTY_TUPLE, pickle.TUPLE, pickle.TUPLE1, pickle.TUPLE2, pickle.TUPLE3, pickle.EMPTY_LIST, pickle.LIST),
    *(pickle.APPEND, pickle.APPENDS, pickle.EMPTY_DICT, pickle.DICT, pickle.SETITEM, pickle.SETITEMS),
    *(pickle.EMPTY_SET, pickle.ADDITEMS, pickle.FROZENSET, pickle.GET, pickle.BINGET, pickle.LONG_BINGET, pickle.PUT),
    *(pickle.BINPUT, pickle.LONG_BINPUT, pickle.MEMOIZE, pickle.GLOBAL, pickle.STACK_GLOBAL, pickle.REDUCE),
    pickle.BUILD,
  )
)
_WITH_NUMBER_LINES = b''.join((pickle.INT, pickle.LONG, pickle.FLOAT, pickle.GET, pickle.PUT))

# The interpreter of pickle's opcodes is the standard library's own, in its Python form, whose methods can be replaced.
_Interpreter: Any = pickle._Unpickler  # pyright: ignore[reportAttributeAccessIssue]  # Not in the stubs.


class _Stop(Exception):  # noqa: N818  # No error.
  """The program has come to its end."""


class _ArrayUnpickler(_Interpreter):
  """An unpickler that knows the names in `ALLOWED` and no other, and leaves large payloads in the file.

  Attributes:
    allowance: bytes that the content may take.
  """

  def __init__(self, path: str):
    self._size = os.path.getsize(path)
    self._file = open(path, 'rb')  # noqa: SIM115  # `load` closes it.
    self.allowance = _ALLOWANCE + _ALLOWANCE_PER_BYTE * self._size
    self._left = self.allowance
    self._longest_line = _MOST_LINE
    super().__init__(self, encoding='latin1')  # The file interface below; pickles of Python 2 are latin1.

  def read(self, size: int) -> bytes:
    # A pickle may claim any length; memory for it is taken before it is read.
    if size >= _LAZY_BYTES and size > self._size - self._file.tell():
      raise EOFError('it ends too early')
    data = self._file.read(size)
    if len(data) < size:
      raise EOFError('it ends too early')
    return data

  def readline(self) -> bytes:
    line = self._file.readline(self._longest_line)
    if not line.endswith(b'\n'):
      raise EOFError('it ends too early, or a line is too long')
    return line

  def load(self) -> Any:
    self.stack, self.metastack = [], []
    self.append = self.stack.append
    with self._file:
      try:
        while True:
          code = self.read(1)[0]
          if code not in _STEPS:
            raise RefusedError(f'an instance of a class, or another program (opcode {code})')
          price, step = _STEPS[code]
          self._spend(price)
          step(self)
      except _Stop:
        left = self._size - self._file.tell()
        if left:
          raise ValueError(f'{left} bytes are left behind its end') from None
    return self.stack[0]

  def _spend(self, price: int) -> None:
    self._left -= price
    if self._left < 0:
      raise RefusedError(f'more than {memory.show(self.allowance)} of memory for {memory.show(self._size)} of file')

  def find_class(self, module: str, name: str) -> Any:
    try:
      return ALLOWED[module, name]
    except KeyError:
      raise RefusedError(f'{module}.{name}') from None

  def load_stop(self) -> None:
    if len(self.stack) != 1 or self.metastack:
      raise ValueError('it stops in the middle')
    raise _Stop

  def load_mark(self) -> None:
    if len(self.metastack) >= _MOST_MARKS:
      raise RefusedError(f'containers nested more than {MOST_DEEP} deep')
    super().load_mark()

  def load_frame(self) -> None:
    self.read(8)  # Frames only help reading ahead; a file could claim one as large as itself.

  def load_build(self) -> None:
    state = self.stack.pop()
    if not isinstance(self.stack[-1], Array | DType):
      raise RefusedError(f'a state for {type(self.stack[-1]).__name__}')
    self.stack[-1].set_state(state)

  def load_reduce(self) -> None:
    arguments = self.stack.pop()
    if not isinstance(arguments, tuple) or len(arguments) > _MOST_ARGUMENTS:
      raise RefusedError(f'a call that has no arguments or more than {_MOST_ARGUMENTS}')
    result = self.stack[-1](*arguments)
    if isinstance(result, str | bytes):
      self._spend(sys.getsizeof(result))
    elif isinstance(result, list | dict | set | frozenset):
      self._spend(_ENTRY * len(result))
    self.stack[-1] = result

  def load_setitem(self) -> None:
    value, key = self.stack.pop(), self.stack.pop()
    self._enter([key, value])

  def load_setitems(self) -> None:
    self._enter(self.pop_mark())

  def load_dict(self) -> None:
    items = self.pop_mark()
    self.append({})
    self._enter(items)

  def _enter(self, items: list) -> None:
    """Puts keys and values, in turn, into the dict that lies on the stack."""
    if not isinstance(self.stack[-1], dict):
      raise ValueError('entries without a dict')
    self._spend(_ENTRY * len(items))
    for key, value in zip(items[::2], items[1::2], strict=True):
      add_entry(self.stack[-1], key, value)

  def load_append(self) -> None:
    self._extend([self.stack.pop()])

  def load_appends(self) -> None:
    self._extend(self.pop_mark())

  def _extend(self, items: list) -> None:
    if not isinstance(self.stack[-1], list):
      raise ValueError('items without a list')
    self.stack[-1].extend(items)

  def load_additems(self) -> None:
    items = self.pop_mark()
    if not isinstance(self.stack[-1], set):
      raise ValueError('members without a set')
    self._spend(_ENTRY * len(items))
    add_members(self.stack[-1], items)

  def load_frozenset(self) -> None:
    items: Any = self.pop_mark()
    self.append(set())
    self._spend(_ENTRY * len(items))
    add_members(self.stack[-1], items)
    self.stack[-1] = frozenset(self.stack[-1])

  def _payload(self, layout: str, decode: Callable[[bytes], Any]) -> None:
    """Puts what follows its length on the stack, or where it lies."""
    (size,) = struct.unpack(layout, self.read(struct.calcsize(layout)))
    if not 0 <= size <= self._size:
      raise EOFError('it ends too early')
    if size < _LAZY_BYTES:
      value = decode(self.read(size))
    else:
      value = Bytes(self._file.tell(), size)
      if size > self._size - value.offset:
        raise EOFError('it ends too early')
      self._file.seek(size, os.SEEK_CUR)
    self._spend(sys.getsizeof(value))
    self.append(value)

  def load_short_binbytes(self) -> None:
    self._payload('<B', bytes)

  def load_binbytes(self) -> None:
    self._payload('<I', bytes)

  def load_binbytes8(self) -> None:
    self._payload('<Q', bytes)

  def load_bytearray8(self) -> None:
    self._payload('<Q', bytes)

  def load_short_binstring(self) -> None:
    self._payload('<B', _latin1)

  def load_binstring(self) -> None:
    self._payload('<i', _latin1)

  def load_short_binunicode(self) -> None:
    self._payload('<B', _utf8)

  def load_binunicode(self) -> None:
    self._payload('<I', _utf8)

  def load_binunicode8(self) -> None:
    self._payload('<Q', _utf8)

  def load_string(self) -> None:
    super().load_string()
    self._spend(sys.getsizeof(self.stack[-1]))

  def load_unicode(self) -> None:
    super().load_unicode()
    self._spend(sys.getsizeof(self.stack[-1]))

  def load_long1(self) -> None:
    self._whole_number('<B')

  def load_long4(self) -> None:
    self._whole_number('<i')

  def _whole_number(self, layout: str) -> None:
    (size,) = struct.unpack(layout, self.read(struct.calcsize(layout)))
    if not 0 <= size <= _NUMBER_BYTES:
      raise RefusedError(f'a whole number of {size} bytes')
    self.append(pickle.decode_long(self.read(size)))

  def short_line(self, step: Callable[[Any], None]) -> None:
    """A step that reads a number from a line."""
    self._longest_line = _NUMBER_LINE
    step(self)
    self._longest_line = _MOST_LINE


def _latin1(data: bytes) -> str:
  return data.decode('latin1')


def _utf8(data: bytes) -> str:
  return data.decode('utf-8', 'surrogatepass')


def _step(code: int) -> Callable[[Any], None]:
  """What an opcode does: our method of the name that it has in the standard library, or else theirs."""
  step = getattr(_ArrayUnpickler, _Interpreter.dispatch[code].__name__)
  return (lambda self: self.short_line(step)) if code in _WITH_NUMBER_LINES else step


_PRICE_OF = {code: price for price, opcodes in _PRICES.items() for code in b''.join(opcodes)}
_STEPS = {code: (_STEP + _PRICE_OF.get(code, 0), _step(code)) for code in _OPCODES}


def load_arrays(path: str) -> Any:
  """Content of a pickle made of containers, arrays, strings and numbers.

  Large arrays come as `FileArray`. What has to be loaded (arrays in Fortran order or in the text form of protocol 2) is
  summed up first and refused where memory does not suffice. Nobody's later walk through the content takes long: it is
  nested at most `MOST_DEEP` deep, and with every reference followed it holds at most `_ALLOWANCE` bytes and
  `_ALLOWANCE_PER_BYTE` for each byte of the file.

  Args:
    path: file to read; pickles of Python 2 are read as latin1.

  Raises:
    UserError: the pickle names anything else (nothing of it has run), holds arrays of objects other than strings, is
      truncated or no pickle at all, or needs more memory than there is or than such a file ever does.
  """
  with reading.naming(path, 'a pickle', 'fetch it again'):
    try:
      unpickler = _ArrayUnpickler(path)
      content = unpickler.load()
      shells = arrays_of(content, unpickler.allowance)
      memory.require(sum(shell.nbytes() for shell in shells if not shell.stays), f'reading {path}')
      return with_arrays(content, {id(shell): _materialise(path, shell) for shell in shells})
    except RefusedError as error:
      asked = reading.said(error)
      raise UserError(
        f'{path} asks for {asked}, which a file of arrays does not need; nothing of it was run: use the published file'
      ) from None


def _materialise(path: str, shell: Array) -> np.ndarray | FileArray:
  """The array of a shell: loaded if small, else left in the file where its order allows it."""
  shape, dtype = shell.checked()
  content = shell.content
  if dtype.hasobject:
    return np.array(content, dtype).reshape(shape)
  if isinstance(content, Bytes):
    if shell.stays and math.prod(shape):
      return FileArray(path, content.offset, dtype, shape)
    content = _read(path, content)
  elif isinstance(content, str):
    content = content.encode('latin1')
  array = np.frombuffer(content, dtype)
  if array.size != math.prod(shape):
    raise ValueError(f'an array of shape {shape} and {len(content)} bytes')
  return np.ascontiguousarray(array.reshape(shape, order='F' if shell.fortran else 'C'))


def _read(path: str, part: Bytes) -> bytearray:
  """The bytes of a part, decoded piece by piece where they are text."""
  result = bytearray()
  with open(path, 'rb') as file:
    file.seek(part.offset)
    left, rest = part.size, b''
    while left:
      piece = file.read(min(_CHUNK, left))
      if not piece:
        raise EOFError('it became shorter while it was read')
      left -= len(piece)
      if part.encoded:
        piece = rest + piece
        # A character of two bytes may be cut: its first byte waits for the second.
        cut = len(piece) - (piece[-1] >= 0xC0)
        piece, rest = piece[:cut].decode('utf-8').encode('latin1'), piece[cut:]
      result += piece
  return result
