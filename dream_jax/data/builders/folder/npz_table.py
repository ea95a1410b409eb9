"""An .npz file as a `Table`: arrays are streamed out of the archive, compressed or not; a pickle is never opened."""

import contextlib
import math
import zipfile
from collections.abc import Iterator, Sequence
from typing import Any, ClassVar

import numpy as np
from numpy.lib import format as npy

from dream_jax.data.builders.folder.tables import Layout, Table, Wanted, rows_at_once
from dream_jax.data.reading import naming
from dream_jax.errors import UserError
from dream_jax.machine import memory

_EXPECTED = 'an .npz file of numpy.savez or numpy.savez_compressed'
_KINDS = {'i': 'integer', 'u': 'integer', 'f': 'number', 'b': 'boolean', 'U': 'text', 'S': 'text', 'O': 'object'}
_SUFFIX = '.npy'
_MOST_INT = np.iinfo(np.int64).max


class NpzTable(Table):
  """Arrays [N, ...] of one .npz."""

  noun: ClassVar[str] = 'array'

  def __init__(self, path: str):
    """Reads the headers.

    Raises:
      UserError: no zip archive of arrays.
    """
    self._shapes: dict[str, tuple[int, ...]] = {}
    self._dtypes: dict[str, np.dtype] = {}
    with naming(path, _EXPECTED), zipfile.ZipFile(path) as archive:
      for member in archive.infolist():
        if not member.filename.endswith(_SUFFIX):
          continue
        name = member.filename.removesuffix(_SUFFIX)
        if name in self._shapes:
          raise UserError(f'{path}: array {name!r} is there twice; expected every name once: write the file again')
        with archive.open(member) as stream:
          shape, _, dtype = _read_header(stream)
          size = stream.tell() + math.prod(shape) * dtype.itemsize
        if size != member.file_size and not dtype.hasobject:
          raise ValueError(f'array {name!r} has {member.file_size} bytes, its header says {size}')
        self._shapes[name], self._dtypes[name] = shape, dtype
    layouts = {n: Layout(_KINDS.get(d.kind, str(d)), self._shapes[n][1:]) for n, d in self._dtypes.items()}
    super().__init__(path, 0, layouts)

  def layout(self, name: str) -> Layout:
    layout = super().layout(name)
    if layout.kind == 'object':
      raise UserError(
        f'{self.where(name)} holds Python objects, which only a pickle can store; pickles are not opened: save numbers '
        'padded to one shape, and text as np.array(list_of_text)'
      )
    if not self._shapes[name]:
      raise UserError(f'{self.where(name)} is a single value; expected one entry a sample, [N, ...]')
    return layout

  def expect_rows(self, reference: str, names: Sequence[str]) -> None:
    self.layout(reference)
    self.num_rows = self._shapes[reference][0]
    for name in names:
      self.layout(name)
      if self._shapes[name][0] != self.num_rows:
        raise UserError(
          f'{self.where(name)} has {self._shapes[name][0]} rows and {reference!r} {self.num_rows}; expected the same '
          'number, one row a sample'
        )

  def values(self, name: str) -> Iterator[Any]:
    self.layout(name)
    for (chunk,) in self._chunks([name]):
      yield from chunk.tolist()

  def rows(self, wanted: Sequence[Wanted]) -> Iterator[tuple[np.ndarray, ...]]:
    for chunks in self._chunks([w.array for w in wanted]):
      converted = []
      for w, chunk in zip(wanted, chunks, strict=True):
        if chunk.ndim == len(w.shape):
          chunk = chunk[..., None]
        if w.integers and chunk.dtype == np.uint64 and (chunk > _MOST_INT).any():
          raise UserError(f'{self.where(w.array)} holds {chunk.max()}; expected token ids below 2^31')
        with np.errstate(over='ignore'):  # Beyond float32 is infinite, and counted as such when the data are read.
          converted.append(chunk.astype(np.int64) if w.integers else chunk.astype(np.float32))
        if w.resolution is not None:
          w.resolution.see(chunk, converted[-1])
      yield from zip(*converted, strict=True)

  def sizes(self, name: str, rank: int) -> tuple[int, ...]:
    shape = self._shapes[name][1:]
    return shape if len(shape) == rank else (*shape, 1)

  def lengths(self, name: str) -> np.ndarray:
    shape = self._shapes[name]
    return np.full(shape[0], shape[1])

  def absent(self, name: str) -> np.ndarray:
    return np.zeros(self._shapes[name][0], bool)

  def _chunks(self, names: Sequence[str]) -> Iterator[list[np.ndarray]]:
    """Consecutive rows of several arrays at a time, each [n, ...]."""
    row_bytes = sum(math.prod(self._shapes[n][1:]) * self._dtypes[n].itemsize for n in names)
    memory.require(row_bytes, f'reading one row of {self.path}')
    step = rows_at_once(row_bytes)
    with naming(self.path, _EXPECTED), zipfile.ZipFile(self.path) as archive, contextlib.ExitStack() as stack:
      readers = [_Reader(stack.enter_context(archive.open(name + _SUFFIX)), self.where(name)) for name in names]
      for start in range(0, self.num_rows, step):
        yield [reader.read(min(step, self.num_rows - start)) for reader in readers]
      for reader in readers:
        reader.finish()


class _Reader:
  """Rows of one array of an open archive, in order."""

  def __init__(self, stream: Any, what: str):
    self._stream = stream
    self._shape, fortran, self._dtype = _read_header(stream)
    self._whole: np.ndarray | None = None
    if fortran:  # Its rows lie scattered over the whole array.
      size = math.prod(self._shape) * self._dtype.itemsize
      memory.require(size, f'reading {what}, which is stored column by column,')
      flat = np.frombuffer(_exactly(stream, size), self._dtype)
      self._whole = flat.reshape(self._shape[::-1]).transpose()
    self._row = 0

  def read(self, count: int) -> np.ndarray:
    """The next rows, [count, ...]."""
    self._row += count
    if self._whole is not None:
      return self._whole[self._row - count : self._row]
    shape = (count, *self._shape[1:])
    return np.frombuffer(_exactly(self._stream, math.prod(shape) * self._dtype.itemsize), self._dtype).reshape(shape)

  def finish(self) -> None:
    """Reads to the end: only there does the archive compare its checksum."""
    if self._stream.read(1):
      raise ValueError('an array is longer than its header says')


def _read_header(stream: Any) -> tuple[tuple[int, ...], bool, np.dtype]:
  """(shape, whether in Fortran order, dtype)."""
  version = npy.read_magic(stream)
  if version == (1, 0):
    return npy.read_array_header_1_0(stream)
  return npy.read_array_header_2_0(stream)


def _exactly(stream: Any, size: int) -> bytes:
  data = stream.read(size)
  if len(data) < size:
    raise EOFError('an array is shorter than its header says')
  return data
