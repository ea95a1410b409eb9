"""Seals: what prepared files were made of and what they are, so that a later change of either is seen.

Pickles, .npy files and most Parquet files carry no checksum: a damaged one may read like any other. Nobody can tell
what happened to a file before it was first seen. From then on its digest stands in the prepared folder, in `SEAL`,
beside the digests of the prepared files themselves.
"""

import dataclasses
import functools
import hashlib
import json
import os
import time
from collections.abc import Iterable, Sequence
from typing import Any

from dream_jax.errors import UserError
from dream_jax.machine import memory

SEAL = 'seal.json'
_RECORDS = 'tfrecord'  # In the names of the large files.
_SETTLED_NS = 2 * 10**9
_SHORT = 16  # Digits of a digest in a message.
_MOST_LINES = 4
_OWN_CHECKSUMS = ('.npz', '.toml')  # Of the formats read here; damaged text does not pass for other text unseen.


@dataclasses.dataclass(frozen=True)
class Source:
  """A file of the user as it was when it was prepared.

  Attributes:
    name: relative to the folder of all of them.
    size: in bytes.
    sha256: of its content.
    state: what changes with the content unless someone takes pains: size, times and the number of its inode.
  """

  name: str
  size: int
  sha256: str
  state: tuple[int, ...]


def digest(path: str) -> str:
  """SHA-256 of a file, in hexadecimal; read once as long as it stays what it is.

  Raises:
    UserError: it cannot be read, or changes meanwhile.
  """
  state = _state(path)
  fresh = (
    time.time_ns() - max(state[1:3]) < _SETTLED_NS
  )  # Written again within one tick of the clock, it looks the same.
  found = (_digest.__wrapped__ if fresh else _digest)(path, state)
  if _state(path) != state:
    raise UserError(f'{path} changes while it is read; wait until it is complete, and run again')
  return found


def sources_of(paths: Sequence[str]) -> tuple[Source, ...]:
  """What files are now.

  Raises:
    UserError: one cannot be read, or changes meanwhile.
  """
  base = folder_of(paths)
  return tuple(
    Source(os.path.relpath(path, base), os.path.getsize(path), digest(path), _state(path)) for path in sorted(paths)
  )


def refuse_changed(paths: Sequence[str], sources: Sequence[Source]) -> None:
  """Refuses files that are no more what they were a moment ago, in the order of the sorted paths.

  Raises:
    UserError: one was written to meanwhile.
  """
  for path, source in zip(sorted(paths), sources, strict=True):
    if _state(path) != source.state and digest(path) != source.sha256:
      raise UserError(f'{path} changed while it was prepared; wait until it is complete, and run again')


def folder_of(paths: Sequence[str]) -> str:
  """The folder that all files lie in, at some depth; '' of none."""
  return os.path.commonpath([os.path.dirname(os.path.abspath(path)) for path in paths]) if paths else ''


def described(paths: Sequence[str], sources: Sequence[Source], published: Iterable[str] = ()) -> list[str]:
  """Lines that tell the user what was prepared, to be compared with what others have.

  Args:
    paths: the files.
    sources: what they were, in the order of the sorted paths.
    published: digests that are known to be right.
  """
  folder, known = folder_of(paths), set(published)
  if len(sources) > _MOST_LINES:
    listing = ''.join(f'{s.sha256}  {s.name}\n' for s in sources)  # As the command sha256sum prints it.
    size = memory.show(sum(s.size for s in sources))
    sha256 = hashlib.sha256(listing.encode('utf-8', 'surrogateescape')).hexdigest()
    return [
      f'prepared from {len(sources)} files in {folder}, {size}, SHA-256 of their list {sha256}{_caution(sources)}'
    ]
  return [
    f'prepared from {os.path.join(folder, s.name)}, {memory.show(s.size)}, SHA-256 {s.sha256}'
    + (': the published file' if s.sha256 in known else _caution([s]))
    for s in sources
  ]


def _caution(sources: Sequence[Source]) -> str:
  endings = {os.path.splitext(s.name)[1] for s in sources} - set(_OWN_CHECKSUMS)
  if not endings:
    return ''
  return f'; {" and ".join(sorted(endings))} files carry no checksum: damage from before cannot be seen here'


def write(folder: str, data_set: str, sources: Sequence[Source]) -> None:
  """Seals a folder of prepared files.

  Args:
    folder: all of its files are there.
    data_set: whose they are, with its version.
    sources: what they were made of.
  """
  files = {name: _of(os.path.join(folder, name)) for name in sorted(os.listdir(folder))}
  content = {'data_set': data_set, 'sources': [dataclasses.asdict(s) for s in sources], 'files': files}
  with open(os.path.join(folder, SEAL), 'w', encoding='ascii') as file:
    json.dump({'sha256': _digest_of(content), 'content': content}, file, indent=1)
    file.flush()
    os.fsync(file.fileno())


def check(folder: str, data_set: str, *, records: bool) -> None:
  """Compares a folder of prepared files to its seal, where it has one.

  Args:
    folder: the folder they lie in.
    data_set: whose they should be, with its version.
    records: whether to read the large files, too; else only their sizes are compared.

  Raises:
    ValueError: anything differs; the message says what.
  """
  content = _read(folder)
  if content is None:
    return
  if content['data_set'] != data_set:
    raise ValueError(f'they are those of {content["data_set"]}; expected {data_set}')
  for name, (size, sha256) in content['files'].items():
    path = os.path.join(folder, name)
    if not os.path.isfile(path):
      raise ValueError(f'{name} is absent')
    if os.path.getsize(path) != size:
      raise ValueError(f'{name} has {os.path.getsize(path)} of {size} bytes')
    if (records or _RECORDS not in name) and digest(path) != sha256:
      raise ValueError(f'{name} is not what was written')


def is_sealed(folder: str) -> bool:
  """Whether a folder of prepared files has a seal; those of earlier versions have none."""
  return os.path.isfile(os.path.join(folder, SEAL))


def compare(folder: str, paths: Sequence[str]) -> None:
  """Compares the user's files to those that a folder of prepared files was made of.

  Raises:
    UserError: they differ in content.
  """
  content = _read(folder)
  if content is None or not content['sources']:
    return
  then = {s['name']: Source(**s | {'state': tuple(s['state'])}) for s in content['sources']}
  base = folder_of(paths)
  now = {os.path.relpath(path, base): path for path in paths}
  remedy = f'if they are right as they are now, delete {folder} and run again; if not, bring the old ones back'
  if now.keys() != then.keys():
    odd = min(now.keys() ^ then.keys())
    change = 'was not among' if odd in now else 'is no more among'
    raise UserError(f'{os.path.join(base, odd)} {change} the files that {folder} was prepared from: {remedy}')
  for name, path in now.items():
    if _state(path) == then[name].state:
      continue
    found = digest(path)
    if found != then[name].sha256:
      raise UserError(
        f'the file {path} changed since it was prepared (SHA-256 was {then[name].sha256[:_SHORT]}..., now '
        f'{found[:_SHORT]}...): if the new one is right, delete {folder} and run again; if not, bring the old one back'
      )


def _read(folder: str) -> dict[str, Any] | None:
  """What a seal says; None where there is none. Raises ValueError where it is broken itself."""
  if not is_sealed(folder):
    return None
  with open(os.path.join(folder, SEAL), encoding='ascii') as file:
    seal = json.load(file)
  if seal['sha256'] != _digest_of(seal['content']):
    raise ValueError(f'{SEAL} is not what was written')
  return seal['content']


def _of(path: str) -> tuple[int, str]:
  return os.path.getsize(path), digest(path)


def _digest_of(content: Any) -> str:
  return hashlib.sha256(json.dumps(content, sort_keys=True).encode('ascii')).hexdigest()


def _state(path: str) -> tuple[int, ...]:
  try:
    found = os.stat(path)
  except OSError as error:
    raise UserError(f'{path} cannot be read ({error.strerror}); let this user read it') from error
  return found.st_size, found.st_mtime_ns, found.st_ctime_ns, found.st_ino


@functools.lru_cache(maxsize=1 << 16)
def _digest(path: str, state: tuple[int, ...]) -> str:
  del state  # Another one is another file.
  try:
    with open(path, 'rb') as file:
      return hashlib.file_digest(file, 'sha256').hexdigest()
  except OSError as error:
    raise UserError(f'{path} cannot be read ({error.strerror}); let this user read it, or copy it again') from error
