"""What was compiled once is not compiled again: JAX's persistent cache, by default in the workdir.

JAX believes that a file holds the program of its name. One that was copied over another, or damaged where its checksum
does not reach, would be run: it fails far from here, or computes something else. So entries are sealed.
"""

import contextlib
import hashlib
import os
import warnings
from typing import Any

import jax

from dream_jax.machine import paths

CACHE_FOLDER = 'xla_cache'
# Seconds: reading a smaller program takes as long as compiling it.
_WORTH_KEEPING = 0.3
# Behind the names of our entries: a cache that is shared with other programs keeps theirs as they are.
_OURS = '-sealed'


def use_cache(config: Any, workdir: str) -> None:
  """Keeps compiled programs on the disk, for the next start, another seed, or the run after a preemption.

  A program that cannot be read there, or is not what was written under its name, is compiled anew; one that cannot be
  written is not kept.

  Args:
    config: its `compile_cache` names the folder; '' for one in the workdir, 'off' for none. JAX's own environment
      variable JAX_COMPILATION_CACHE_DIR comes first.
    workdir: folder of the run.
  """
  warnings.filterwarnings('ignore', 'Error (reading|writing) persistent compilation cache entry')
  _seal_entries()
  chosen = getattr(config, 'compile_cache', '')
  if chosen == 'off' or os.environ.get('JAX_COMPILATION_CACHE_DIR'):
    return
  chosen = paths.expanded(chosen, 'config.compile_cache')
  if chosen and '://' not in chosen and not _writable(chosen):
    print(f'config.compile_cache={chosen} cannot be written: what is not there is compiled at every start', flush=True)
  jax.config.update('jax_compilation_cache_dir', chosen or os.path.join(workdir, CACHE_FOLDER))
  jax.config.update('jax_persistent_cache_min_compile_time_secs', _WORTH_KEEPING)


def _seal_entries() -> None:
  """Makes JAX seal what it keeps and look at the seal of what it reads."""
  from jax._src import compilation_cache  # JAX lets nobody choose the cache otherwise.

  make = compilation_cache.get_file_cache
  if getattr(make, 'seals', False):
    return

  def get_file_cache(path: str) -> Any:
    found = make(path)
    return found and (_SealedCache(found[0]), found[1])

  get_file_cache.seals = True  # pyright: ignore[reportFunctionMemberAccess]
  compilation_cache.get_file_cache = get_file_cache


class _SealedCache:
  """A cache of JAX whose entries begin with a hash over their name and content."""

  def __init__(self, base: Any):
    self._base, self._path = base, base._path

  def get(self, key: str) -> bytes | None:
    """The entry; None where there is none, and where it is not what `put` wrote under this name."""
    found = self._base.get(key + _OURS)
    if found is None:
      return None
    size = hashlib.sha256().digest_size
    if found[:size] == _seal(key, found[size:]):
      return found[size:]
    with contextlib.suppress(OSError):  # JAX writes no entry over another.
      (self._path / f'{key}{_OURS}-cache').unlink()
    return None

  def put(self, key: str, value: bytes) -> None:
    """Keeps the entry."""
    self._base.put(key + _OURS, _seal(key, value) + value)


def _seal(key: str, value: bytes) -> bytes:
  return hashlib.sha256(key.encode() + b'\0' + value).digest()


def _writable(folder: str) -> bool:
  try:
    os.makedirs(folder, exist_ok=True)
  except OSError:
    return False
  return os.access(folder, os.W_OK)
