"""Ways to spoil an input: its bytes, whatever they mean, and its content, by what it means."""

import io
import math
import os
import random
import re
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from faults.formats import Format

_NUMBERS = (math.nan, math.inf, -math.inf, -1, 0, 1, 2**31, 2**63, 10**20, 1e-300, 0.5, -0.0)
_DTYPES = ('f2', 'f8', 'i1', 'u2', 'i8', '?', 'c8', 'S5', 'U3', 'M8[D]', '>f4', 'f16', 'O', [('a', 'f4'), ('b', 'i4')])
_BYTES = ('flip', 'flip', 'byte', 'bytes', 'truncate', 'splice', 'duplicate', 'cut', 'insert', 'head', 'tail')
_ARROW = (pa.string(), pa.int8(), pa.float16(), pa.bool_(), pa.binary(), pa.decimal128(9, 2), pa.date32())


def bytes_of(content: bytes, rng: random.Random) -> tuple[str, bytes]:
  """(what was done, the bytes after it)."""
  n = max(1, len(content))
  a, b = sorted((rng.randrange(n), rng.randrange(n)))
  small = a + rng.randrange(1, 65)
  what = rng.choice(
    ('flip', 'flip', 'byte', 'bytes', 'truncate', 'splice', 'duplicate', 'cut', 'insert', 'head', 'tail')
  )
  if what in ('flip', 'byte', 'head', 'tail'):
    # Headers and footers are few bytes that decide much.
    where = {'head': rng.randrange(min(n, 200)), 'tail': n - 1 - rng.randrange(min(n, 400))}.get(what, a)
    old = content[where] if content else 0
    new = old ^ (1 << rng.randrange(8)) if what == 'flip' else rng.choice((0, 0xFF, 0x7F, 0x80, rng.randrange(256)))
    return what, content[:where] + bytes([new]) + content[where + 1 :]
  if what == 'bytes':
    return what, content[:a] + rng.randbytes(min(8, n - a)) + content[a + 8 :]
  if what == 'truncate':
    return what, content[:a]
  if what == 'splice':
    return what, content[:a] + content[b:] + content[a:b]
  if what == 'duplicate':
    return what, content[:small] + content[a:small] + content[small:]
  if what == 'cut':
    return what, content[:a] + content[small:]
  return what, content[:a] + rng.randbytes(rng.randrange(1, 9)) + content[a:]


class Payload:
  """Pickles as a call; where it is made, the canary is there."""

  def __init__(self, canary: str):
    self._canary = canary

  def __reduce__(self) -> Any:
    return os.mkdir, (self._canary,)


def content_of(of: Format, path: Path, rng: random.Random, canary: str) -> str:
  """Writes a file whose content is spoiled; what was done."""
  content = of.content()
  if isinstance(content, str):
    what, content = _lines(content, rng)
  elif path.suffix == '.npz':
    if rng.random() < 0.35:
      what, data = _header(of, path, content, rng, canary)
      path.write_bytes(data)
      return what
    what, content = _arrays(content, rng, canary)
  elif path.suffix == '.parquet':
    what, content = _table(content, rng)
  else:
    what = ', then '.join(_tree(content, rng, canary) for _ in range(rng.randint(1, 2)))
  of.dump(path, content)
  return what


def _array(old: Any, rng: random.Random, canary: str) -> tuple[str, Any]:
  """Another array in its place."""
  old = np.asarray(old)
  what = rng.choice(('dtype', 'shape', 'values', 'values', 'order', 'rows', 'objects', 'huge', 'text', 'scalar'))
  with np.errstate(all='ignore'):
    try:
      if what == 'dtype':
        dtype = rng.choice(_DTYPES)
        return f'dtype {dtype}', old.astype(dtype)
      if what == 'shape':
        shape = rng.choice((old.shape[::-1], (*old.shape, 1), (1, *old.shape), (old.size,), (old.shape[0], -1)))
        return f'shape {shape}', old.reshape(shape)
      if what == 'values':
        value, new = rng.choice(_NUMBERS), old.copy().reshape(-1)
        new[[rng.randrange(new.size) for _ in range(rng.choice((1, 3, new.size)))]] = value
        return f'values {value}', new.reshape(old.shape)
    except (ValueError, TypeError, OverflowError, IndexError):
      return 'nothing', old
  if what == 'order':
    return what, np.asfortranarray(old)
  if what == 'rows':
    return what, old[: rng.randrange(len(old) + 1)] if old.ndim else old
  if what == 'objects':
    return what, np.array([Payload(canary)] * max(1, len(old) if old.ndim else 1), dtype=object)
  if what == 'huge':
    return what, np.broadcast_to(np.float32(1), (*old.shape[:1], 50, 200)).copy()
  return what, np.array(['a'] * len(old)) if what == 'text' and old.ndim else np.float64(1.0)


def _arrays(content: dict[str, Any], rng: random.Random, canary: str) -> tuple[str, dict[str, Any]]:
  name, other = rng.choice(list(content)), rng.choice(list(content))
  what = rng.choice(('drop', 'rename', 'swap', *('array',) * 7))
  content = dict(content)
  if what == 'drop':
    del content[name]
  elif what == 'rename':
    content[name + rng.choice(('s', ' ', '_', '/x', '\u00e9'))] = content.pop(name)
  elif what == 'swap':
    content[name], content[other] = content[other], content[name]
  else:
    what, content[name] = _array(content[name], rng, canary)
  return f'{name}: {what}', content


def _header(of: Format, path: Path, content: Any, rng: random.Random, canary: str) -> tuple[str, bytes]:
  """An .npz whose checksums are right and one of whose headers is not."""
  of.dump(path, content)
  out = io.BytesIO()
  with zipfile.ZipFile(path) as old, zipfile.ZipFile(out, 'w') as new:
    chosen = rng.choice(old.namelist())
    what = ''
    for name in old.namelist():
      data = old.read(name)
      if name == chosen:
        what, data = _npy(data, rng, canary)
        if rng.random() < 0.1:  # Twice under one name: which of them counts?
          new.writestr(name, old.read(name))
      new.writestr(name, data)
  return f'{chosen}: {what}', out.getvalue()


def _npy(data: bytes, rng: random.Random, canary: str) -> tuple[str, bytes]:
  size = int.from_bytes(data[8:10], 'little')
  header, rest = data[10 : 10 + size].decode('latin1'), data[10 + size :]
  shape = re.search(r"'shape': (\(.*?\))", header)
  old = shape[1] if shape else '()'
  new = rng.choice(
    (
      header.replace(old, '(10000000000000,)'),
      header.replace(old, '(-1,)'),
      header.replace(old, old.replace('40', '41')),
      header.replace(old, old.replace('40', '39')),
      header.replace(old, '(40, 1.5)'),
      header.replace(old, '(True,)'),
      header.replace('False', 'True'),
      re.sub(r"'descr': '[^']*'", f"'descr': '{rng.choice(('|O', '<f8', '<i2', '|V4', '<U1', '<c16', 'x'))}'", header),
      re.sub(r"'descr': '[^']*'", f"'descr': __import__('os').mkdir({canary!r})", header),
      header.replace('fortran', 'other'),
      header[: len(header) // 2],
      '(' * 5000,
    )
  )
  version = rng.choice((b'\1\0', b'\1\0', b'\1\0', b'\2\0', b'\3\0', b'\x09\0'))
  length = len(new).to_bytes(2 if version == b'\1\0' else 4, 'little')
  return f'header {new[:60]!r} version {version!r}', data[:6] + version + length + new.encode('latin1') + rest


def _table(content: dict[str, list[Any]], rng: random.Random) -> tuple[str, pa.Table]:
  name = rng.choice(list(content))
  values = list(content[name])
  what = rng.choice(('null', 'nulls', 'empty', 'ragged', 'deeper', 'type', 'number', 'drop', 'rename', 'twice', 'rows'))
  row = rng.randrange(len(values))
  table = pa.table(content)
  at = table.column_names.index(name)
  try:
    if what == 'null':
      values[row] = None
    elif what == 'nulls':
      values = [None] * len(values)
    elif what == 'empty':
      values[row] = [] if isinstance(values[row], list) else ''
    elif what == 'ragged':
      values[row] = values[row][:-1] if isinstance(values[row], list) else values[row]
    elif what == 'deeper':
      values = [[v] for v in values]
    elif what == 'number':
      values = _with_number(values, row, rng.choice(_NUMBERS))
    elif what == 'type':
      kind = rng.choice(
        (pa.string(), pa.int8(), pa.float16(), pa.bool_(), pa.binary(), pa.decimal128(9, 2), pa.date32())
      )
      return f'{name}: {what} {kind}', table.set_column(at, name, table[name].cast(kind, safe=False))
    elif what == 'drop':
      return f'{name}: {what}', table.drop_columns([name])
    elif what == 'rename':
      return f'{name}: {what}', table.rename_columns([n + 's' if n == name else n for n in table.column_names])
    elif what == 'twice':
      return f'{name}: {what}', table.append_column(name, table[name])
    else:
      return what, table.slice(0, rng.randrange(len(values)))
    return f'{name}: {what}', table.set_column(at, name, pa.array(values))
  except (pa.ArrowException, ValueError, TypeError, OverflowError):
    return 'nothing', table


def _with_number(values: list[Any], row: int, number: Any) -> list[Any]:
  """The first number of a row is another."""
  new = list(values)
  if not isinstance(new[row], list):
    new[row] = number
  elif new[row]:
    new[row] = _with_number(new[row], 0, number)
  return new


def _tree(content: Any, rng: random.Random, canary: str) -> str:
  """Changes something somewhere in dicts and lists, in place."""
  path, node = '', content
  while True:
    keys = list(node) if isinstance(node, dict) else list(range(len(node)))
    if not keys:
      return 'nothing'
    key = rng.choice(keys)
    path += f'/{key}'
    child = node[key]
    if isinstance(child, dict | list) and child and rng.random() < 0.75:
      node = child
      continue
    break
  what = rng.choice(('array', 'array', 'array', 'other', 'other', 'payload', 'drop', 'rename', 'laughs', 'deep'))
  if what == 'array' and isinstance(child, np.ndarray):
    what, node[key] = _array(child, rng, canary)
  elif what == 'payload':
    node[key] = Payload(canary)
  elif what == 'drop':
    del node[key]
  elif what == 'rename' and isinstance(node, dict):
    node[f'{key}s'] = node.pop(key)
  elif what == 'laughs':  # A few bytes that mean 2^40 of them.
    laugh: list[Any] = ['a']
    for _ in range(40):
      laugh = [laugh, laugh]
    node[key] = laugh
  elif what == 'deep':
    deep: list[Any] = []
    for _ in range(400):
      deep = [deep]
    node[key] = deep
  else:
    value = rng.choice((*_NUMBERS, None, '', 'text', b'\xff', [], {}, (1, 2), {1, 2}, [None], 'x' * 10**5, True))
    what, node[key] = f'other {value!r:.20}', value
  return f'{path}: {what}'


_TOKENS: tuple[str, ...] = (
  *('nan', 'inf', '-1', '0', '1.5', str(10**20), '"text"', '""', '[]', '{}', 'true', '["a", 1]', '1979-05-27'),
  *('"../data"', '"/etc/passwd"', '"**/*"', '"\\u0000"', '"a\\nb"', 'x', "'''", '"tokens"', '"image"', '"vector"'),
)


def _lines(text: str, rng: random.Random) -> tuple[str, str]:
  """Of a text of settings: a line less, twice, elsewhere, or with another value."""
  lines = text.split('\n')
  i, j = rng.randrange(len(lines)), rng.randrange(len(lines))
  what = rng.choice(('drop', 'twice', 'move', 'value', 'value', 'value', 'key'))
  old: Callable[[], str] = lambda: lines[i]  # noqa: E731
  if what == 'drop':
    del lines[i]
  elif what == 'twice':
    lines.insert(j, old())
  elif what == 'move':
    lines.insert(j, lines.pop(i))
  elif what == 'value':
    i = rng.choice([k for k, line in enumerate(lines) if '=' in line])
    value = rng.choice(_TOKENS)
    lines[i] = f'{lines[i].partition("=")[0]}= {value}'
    what = f'{lines[i].strip()}'
  else:
    lines[i] = old().replace('=', rng.choice(('.x =', ' ', '==', '"=')), 1)
  return what, '\n'.join(lines)
