"""One .npz file of known arrays, or one .npy: checked and read, with a clear word where it is not what it should be."""

import dataclasses
import itertools
import math
import zipfile
from collections.abc import Mapping
from typing import IO, Literal

import numpy as np
from numpy.lib import format as npy

from dream_jax.data import reading
from dream_jax.errors import UserError
from dream_jax.machine import memory

_EXPECTED = '.npz'
_SUFFIX = '.npy'
_DTYPES = {'text': 'US', 'whole': 'iu', 'number': 'fiub'}
_CALLED = {'text': 'text', 'whole': 'whole numbers', 'number': 'numbers'}
# Real arrays shrink by a tenth, by half, rarely to a fiftieth.
_MOST_BYTES, _MOST_TIMES = 64 << 20, 100


@dataclasses.dataclass(frozen=True)
class Field:
  """What an array of the file has to be.

  Attributes:
    kind: kind of its values.
    shape: sizes; a letter is any size, the same for all arrays.
    low: the lowest value there may be; None where any is right, also NaN.
    high: the highest.
  """

  kind: Literal['text', 'whole', 'number']
  shape: tuple[int | str, ...] = ('N',)
  low: float | None = None
  high: float = math.inf


def read(path: str, fields: Mapping[str, Field]) -> dict[str, np.ndarray]:
  """The named arrays of an .npz; no pickle in it is opened, and each has passed the archive's checksum.

  Args:
    path: the file.
    fields: what each array has to be; text is returned as str.

  Raises:
    UserError: no such archive, an array that is absent or not what it should be, or too little memory.
  """
  arrays = {}
  sizes: dict[str, int] = {}
  with reading.naming(path, _EXPECTED, 'get it again'), zipfile.ZipFile(path) as archive:
    members = {info.filename.removesuffix(_SUFFIX): info for info in archive.infolist()}
    if len(members) < len(archive.infolist()):
      raise ValueError('two arrays of one name')
    total, own = sum(members[name].file_size for name in fields if name in members), memory.show(archive.start_dir)
    if total > _MOST_BYTES + _MOST_TIMES * archive.start_dir:
      raise UserError(f'{path} unpacks to {memory.show(total)} from {own}, which no such arrays do: get it again')
    memory.require(total, f'reading {path}')
    for name, field in fields.items():
      if name not in members:
        raise UserError(f'{path} has no array {name!r}; found {", ".join(list(members)[:40])}')
      with archive.open(members[name]) as stream:
        array = read_array(stream, members[name].file_size)
      arrays[name] = _checked(array, field, sizes, f'{path}: {name}')
  return arrays


def read_array(stream: IO[bytes], size: int) -> np.ndarray:
  """The array of a stream in the .npy format that has `size` bytes and no more; to be called inside `reading.naming`.

  Raises:
    ValueError: it holds Python objects or records, or its header does not fit the size. NumPy raises others as well.
  """
  version = npy.read_magic(stream)
  if version not in ((1, 0), (2, 0)):
    raise ValueError(f'version {version} of the .npy format')
  shape, fortran, dtype = (npy.read_array_header_1_0 if version == (1, 0) else npy.read_array_header_2_0)(stream)
  if dtype.hasobject:
    raise ValueError('Object arrays are pickles, which are not opened')
  if dtype.kind not in 'biufcSU':
    raise ValueError(f'values of type {dtype}')
  wanted = math.prod(shape) * dtype.itemsize
  if min(shape, default=0) < 0:
    raise ValueError(f'shape {shape}')
  if wanted > size:  # Memory for it is taken before it is read.
    raise ValueError(f'it ends before the {wanted} bytes that its header promises')
  content = stream.read(wanted)
  if len(content) < wanted or stream.read(1):  # Only at its end is a member of an archive compared to its checksum.
    raise ValueError(f'it has other than the {wanted} bytes that its header promises')
  flat = np.frombuffer(content, dtype)
  return flat.reshape(shape[::-1]).transpose() if fortran else flat.reshape(shape)


def texts(path: str, blob: np.ndarray, offsets: np.ndarray, count: int) -> list[str]:
  """`count` UTF-8 texts stored one behind the other: text i is the bytes from offsets[i] to offsets[i + 1].

  Raises:
    UserError: offsets that do not divide the bytes into as many, or a text that is not UTF-8.
  """
  content, ends = blob.tobytes(), offsets.tolist()
  if len(ends) != count + 1 or [ends[0], ends[-1]] != [0, len(content)] or ends != sorted(ends):
    raise UserError(f'{path}: the offsets of its texts do not divide {len(content)} bytes into {count}: get it again')
  return [reading.exact_text(content[a:b], f'{path}: text {i}') for i, (a, b) in enumerate(itertools.pairwise(ends))]


def _checked(array: np.ndarray, field: Field, sizes: dict[str, int], where: str) -> np.ndarray:
  """The array, text as str; raises UserError where it is not what `field` says."""
  known = tuple(sizes.get(str(n), n) for n in field.shape)
  if len(known) != array.ndim or any(isinstance(n, int) and n != m for n, m in zip(known, array.shape, strict=True)):
    raise UserError(f'{where} has shape {array.shape}; expected ({", ".join(str(n) for n in known)})')
  if array.dtype.kind not in _DTYPES[field.kind]:
    raise UserError(f'{where} holds {array.dtype}; expected {_CALLED[field.kind]}')
  sizes |= {n: m for n, m in zip(field.shape, array.shape, strict=True) if isinstance(n, str)}
  if field.kind == 'text':
    return np.array([reading.exact_text(v, f'{where} of row {i}') for i, v in enumerate(array.tolist())], dtype=str)
  if field.low is not None:
    wrong = np.argwhere(~((array >= field.low) & (array <= field.high)))
    if len(wrong):
      found = array[tuple(wrong[0])]
      raise UserError(
        f'{where} of row {wrong[0][0]} is {found}; expected {field.low:g} to {field.high:g}: is it the published file?'
      )
  return array
