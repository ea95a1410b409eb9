"""What of a workdir must not depend on how often its run was interrupted; and which of its files are no whole files."""

import hashlib
import io
import json
import re
import zipfile
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

# How long something took, where, and hashes of files that say so.
_OF_THE_RUN = re.compile(r'.*seconds|environment|.*sha256.*|.*seal.*|.*digest.*')
# Logs for the eye, programs, and what is made of results.
_APART = re.compile(r'tensorboard|xla_cache|figures|checkpoints')
_TORN = (ValueError, KeyError, EOFError, OSError, NotImplementedError, zipfile.BadZipFile, zlib.error)


def essence(place: Any) -> dict[str, Any]:
  """Relative path -> content of every file that counts; arrays by their hash.

  Args:
    place: its paths may stand in files, and differ from trial to trial.
  """
  # The deepest first: one may lie in another.
  parts = ((name, getattr(place, name)) for name in ('root', 'prepared', 'compiled', 'data'))
  folders = sorted(parts, key=lambda part: -len(str(part[1])))
  found = {}
  for path, name in _files(place.workdir):
    try:
      content = _content(path, {str(folder): f'<{part}>' for part, folder in folders})
    except _TORN as error:
      content = f'unreadable: {error}'
    if content is not None:
      found[name] = content
  return found


def parameters(workdir: str) -> dict[str, str]:
  """Leaf of every selected tree of parameters, and of the last state of every training -> hash of its values.

  For a child: Orbax asks JAX for its devices.
  """
  import jax
  import orbax.checkpoint as ocp

  found = {}
  for folder in sorted({p.parent for p in Path(workdir).rglob('_METADATA')}):
    step = next(p for p in (folder, *folder.parents) if p.name.isdigit())
    if any(int(p.name) > int(step.name) for p in step.parent.iterdir() if p.name.isdigit()):
      continue
    with ocp.PyTreeCheckpointer() as reader:
      # As NumPy: a save of several processes belongs to devices that are not here.
      leaves = reader.metadata(folder).item_metadata.tree
      tree = reader.restore(
        folder, restore_args=jax.tree.map(lambda _: ocp.RestoreArgs(restore_type=np.ndarray), leaves)
      )
    for path, leaf in jax.tree_util.tree_flatten_with_path(tree)[0]:
      name = f'{step.relative_to(workdir)}{jax.tree_util.keystr(path)}'
      found[name] = hash_of(np.asarray(leaf))
  return found


def differences(mine: dict[str, Any], theirs: dict[str, Any]) -> list[str]:
  """Names of what is not the same, down to the field."""
  return list(_differences('', mine, theirs))


def torn(workdir: Path) -> list[str]:
  """Files that are no whole files: a reader that came after a kill would find them so."""
  found = []
  for path, name in _files(workdir):
    if path.name.startswith('.'):  # On its way; nobody reads it.
      continue
    try:
      _content(path, {}, torn_line=True)
    except _TORN as error:
      found.append(f'{name}: {error}')
  return found


def _files(workdir: Path) -> Iterator[tuple[Path, str]]:
  for path in sorted(workdir.rglob('*')):
    name = path.relative_to(workdir)
    if path.is_file() and not any(_APART.fullmatch(part) for part in name.parts):
      yield path, name.as_posix()


def _content(path: Path, places: dict[str, str], *, torn_line: bool = False) -> Any:
  """None where the file does not count."""
  if path.name.startswith('.') or _OF_THE_RUN.fullmatch(path.stem):
    return None
  if path.suffix == '.npz':
    with np.load(io.BytesIO(path.read_bytes()), allow_pickle=False) as arrays:
      return {name: hash_of(arrays[name]) for name in arrays.files}
  if path.suffix not in ('.json', '.jsonl'):
    return None
  text = path.read_text(encoding='utf-8')
  for old, new in places.items():
    text = text.replace(old, new)
  if path.suffix == '.json':
    return _scrubbed(json.loads(text))
  lines = text.split('\n')
  # What follows the last newline was being written.
  return [_scrubbed(json.loads(line)) for line in (lines[:-1] if torn_line or not lines[-1] else lines)]


def _scrubbed(obj: Any) -> Any:
  if isinstance(obj, dict):
    return {key: _scrubbed(value) for key, value in obj.items() if not _OF_THE_RUN.fullmatch(key)}
  return [_scrubbed(value) for value in obj] if isinstance(obj, list) else obj


def hash_of(array: np.ndarray) -> str:
  """Of type, shape and values; texts by their characters."""
  return hashlib.sha256(f'{array.dtype}{array.shape}'.encode() + np.ascontiguousarray(array).tobytes()).hexdigest()


def _differences(path: str, mine: Any, theirs: Any) -> Iterator[str]:
  if isinstance(mine, dict) and isinstance(theirs, dict):
    for key in sorted(mine.keys() | theirs.keys()):
      if key not in mine or key not in theirs:
        yield f'{path}/{key} {"absent" if key not in mine else "too many"}'
      else:
        yield from _differences(f'{path}/{key}', mine[key], theirs[key])
  elif isinstance(mine, list) and isinstance(theirs, list) and len(mine) == len(theirs):
    for i, (a, b) in enumerate(zip(mine, theirs, strict=True)):
      yield from _differences(f'{path}[{i}]', a, b)
  elif mine != theirs:
    yield f'{path}: {json.dumps(mine)[:60]} instead of {json.dumps(theirs)[:60]}'
