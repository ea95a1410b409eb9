"""Files that are read back only if they are what was written: JSON, lines of a log, and arrays that a JSON file names.

A seal holds the SHA-256 of what it seals, the run that this belongs to, and the name of its place. A flipped digit, a
file that ends early, one of another run and one in the place of another are refused in one line, and nothing is taken
from them. Seals find accidents, not forgeries.
"""

import hashlib
import io
import json
import math
import os
import re
from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
from etils import epath

from dream_jax.errors import UserError
from dream_jax.workdir import storage

_SEAL, _ARRAYS = 'seal', 'arrays'
_EARLIER = 'an earlier version of this program wrote it, or it is damaged'
_SHORT = 16  # hexadecimal digits of a hash in names and lines: two accidents in 10^19 agree.


class Sealed(NamedTuple):
  """What a sealed file holds.

  Attributes:
    content: what was written, as JSON has it: tuples have become lists.
    run: the run that it belongs to; None where it was written for none.
  """

  content: dict[str, Any]
  run: str | None


def write(
  path: str | os.PathLike[str], content: Mapping[str, Any], *, run: str | None = None, name: str | None = None
) -> None:
  """Writes sealed JSON to `path` in one step: a reader sees the old file or the new one, never a part.

  Args:
    path: the file.
    content: what `plain` takes.
    run: what it belongs to.
    name: what it is sealed as, for files that all have one name; the name of the file unless given.

  Raises:
    OSError: the disk is full, read-only or not ours to write; the old file is untouched.
    TypeError: `content` holds something JSON has no word for.
  """
  content = plain(content)
  seal = {'run': run, 'name': name or storage.place(path).name}
  seal = {'sha256': _digest(content, seal), **seal}
  storage.write(path, (json.dumps({**content, _SEAL: seal}, indent=1, allow_nan=False) + '\n').encode())


def read(path: str | os.PathLike[str], *, remedy: str, run: str | None = None, name: str | None = None) -> Sealed:
  """What `write` stored.

  Args:
    path: the file.
    remedy: what the user can do if it is not as it should be.
    run: what it has to belong to; None takes any.
    name: as it was written with.

  Raises:
    FileNotFoundError: there is no such file.
    UserError: it is damaged, has no seal, or is of another run or place.
  """
  path = storage.place(path)
  try:
    content = json.loads(path.read_bytes())
    if not isinstance(content, dict):
      raise ValueError(f'it holds {type(content).__name__}, not an object')
    seal = content.pop(_SEAL, None)
    rest = {key: value for key, value in seal.items() if key != 'sha256'} if isinstance(seal, dict) else {}
    whole = bool(rest) and seal['sha256'] == _digest(content, rest)
  except FileNotFoundError:
    raise
  except (OSError, ValueError, KeyError, RecursionError) as error:
    raise UserError(f'{path} cannot be read ({_reason(error)}); {remedy}') from error
  if seal is None:
    raise UserError(f'{path} has no seal: {_EARLIER}; {remedy}')
  if not whole:
    raise UserError(f'{path} is damaged: its content is not what was written; {remedy}')
  expected = name or path.name
  if rest['name'] != expected:
    raise UserError(f'{path} was written as {rest["name"]}, expected {expected}; {remedy}')
  _check_run(path, rest['run'], run, remedy)
  return Sealed(content, rest['run'])


def write_with_arrays(
  path: str | os.PathLike[str], content: Mapping[str, Any], arrays: Mapping[str, np.ndarray], *, run: str | None = None
) -> None:
  """Writes sealed JSON and the arrays that it names beside it; a kill leaves the old pair or the new one.

  The arrays go first, into a file with their hash in its name; then the JSON that names it; then what nothing names
  is removed.
  """
  path, buffer = storage.place(path), io.BytesIO()
  np.savez(buffer, **arrays)  # pyright: ignore[reportArgumentType]  # It takes any name for `allow_pickle`.
  data = buffer.getvalue()
  digest = hashlib.sha256(data).hexdigest()
  file = f'{path.stem}.{digest[:_SHORT]}.npz'
  storage.write(path.parent / file, data)
  write(path, {**content, _ARRAYS: {'file': file, 'sha256': digest}}, run=run)
  for other in [*path.parent.iterdir()]:
    if other.name != file and re.fullmatch(rf'{re.escape(path.stem)}\.[0-9a-f]{{{_SHORT}}}\.npz', other.name):
      other.unlink(missing_ok=True)


def read_with_arrays(
  path: str | os.PathLike[str], *, remedy: str, run: str | None = None
) -> tuple[dict[str, Any], dict[str, np.ndarray], str | None]:
  """(content, arrays, run) as `write_with_arrays` stored them; raises as `read` does."""
  path = storage.place(path)
  content, owner = read(path, remedy=remedy, run=run)
  named = content.pop(_ARRAYS, None)
  if named is None:
    raise UserError(f'{path} names no arrays: {_EARLIER}; {remedy}')
  file = path.parent / named['file']
  try:
    data = file.read_bytes()
  except FileNotFoundError:
    now = read(path, remedy=remedy, run=run).content
    if now.get(_ARRAYS) != named:  # A writer was faster.
      return read_with_arrays(path, remedy=remedy, run=run)
    raise UserError(f'{file} is missing, which {path.name} speaks of; {remedy}') from None
  except OSError as error:
    raise UserError(f'{file} cannot be read ({_reason(error)}); {remedy}') from error
  if hashlib.sha256(data).hexdigest() != named['sha256']:
    raise UserError(f'{file} is damaged: its content is not what was written; {remedy}')
  with np.load(io.BytesIO(data), allow_pickle=False) as arrays:
    return content, {name: arrays[name] for name in arrays.files}, owner


def line(record: Mapping[str, Any], *, run: str | None = None) -> bytes:
  """One sealed line of a log, with its newline."""
  record = plain(record)
  return json.dumps({**record, _SEAL: _line_seal(record, (run or '')[:_SHORT])}, allow_nan=False).encode() + b'\n'


def records(
  data: bytes, path: str | os.PathLike[str], *, remedy: str, run: str | None = None
) -> list[tuple[bytes, dict[str, Any]]]:
  """(line, record) of every line that `line` made. What follows the last newline was torn by a kill and is left out.

  Args:
    data: content of the log.
    path: the log, for messages.
    remedy: what the user can do about a line that is not as it should be.
    run: what every line has to belong to; None takes any.

  Raises:
    UserError: a line is damaged, has no seal or is of another run; the message has its number.
  """
  found = []
  for number, text in enumerate(data.split(b'\n')[:-1], 1):
    where = f'line {number} of {os.fspath(path)}'
    try:
      record = json.loads(text)
      seal = record.pop(_SEAL, None)
      if seal is None:
        raise UserError(f'{where} has no seal: {_EARLIER}; {remedy}')
      owner = str(seal).partition(':')[0]
      whole = seal == _line_seal(record, owner)
    except (ValueError, AttributeError, TypeError, RecursionError):
      whole, owner, record = False, '', {}
    if not whole:
      raise UserError(f'{where} is damaged; {remedy}')
    _check_run(where, owner, run and run[:_SHORT], remedy)
    found.append((text + b'\n', record))
  return found


def plain(obj: Any) -> Any:
  """`obj` in JSON's own types: str keys, lists, Python numbers, null for NaN and infinities."""
  if obj is None or isinstance(obj, (bool, int, str)):
    return obj
  if isinstance(obj, float):
    return obj if math.isfinite(obj) else None
  if isinstance(obj, Mapping) or hasattr(obj, 'to_dict'):
    # A ConfigDict resolves its references when it becomes a dict.
    items = obj if isinstance(obj, Mapping) else obj.to_dict()
    return {str(key): plain(value) for key, value in items.items()}
  if isinstance(obj, (tuple, list)):
    return [plain(value) for value in obj]
  if isinstance(obj, (np.ndarray, np.generic)) or hasattr(obj, '__array__'):
    array = np.asarray(obj)
    # bfloat16 and its kin are no Python type; float32 holds them exactly.
    array = array.astype(np.float32) if array.dtype.kind == 'V' else array
    return plain(array.tolist())
  if isinstance(obj, os.PathLike):
    return os.fspath(obj)
  raise TypeError(f'cannot write {type(obj).__name__} as JSON: {obj!r:.80}')


def _check_run(where: epath.Path | str, found: str | None, expected: str | None, remedy: str) -> None:
  if expected is not None and found != expected:
    raise UserError(f'{where} belongs to another run (another config, other seeds or other data); {remedy}')


def _digest(*parts: Any) -> str:
  return hashlib.sha256(json.dumps(parts, sort_keys=True, allow_nan=False).encode()).hexdigest()


def _line_seal(record: Mapping[str, Any], owner: str) -> str:
  return f'{owner}:{_digest(record, owner)[:_SHORT]}'


def _reason(error: BaseException) -> str:
  return f'{type(error).__name__}: {" ".join(str(error).split())[:120]}'
