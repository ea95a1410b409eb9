"""A workdir belongs to one config: continuing it with another would mix two experiments in one set of results."""

import contextlib
import hashlib
import json
import os
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import jax
from etils import epath

from dream_jax.errors import UserError
from dream_jax.parallel import hosts
from dream_jax.workdir import sealed, storage
from dream_jax.workdir.ledger import LEDGER_FILE
from dream_jax.workdir.sealed import Sealed, plain

CONFIG_FILE = 'config.json'


def run_identity(config: Mapping[str, Any], data: str, *, ignore: Sequence[str]) -> str:
  """What a run is: a hash of all of the config that decides its results, and of the data.

  Args:
    config: the resolved config, a ConfigDict or nested dict.
    data: fingerprint of the data.
    ignore: dotted fields that do not matter for results, as `check_workdir` takes them.
  """
  fields = sorted((name, _one_number(value)) for name, value in _leaves(plain(config)) if not _covered(name, ignore))
  return hashlib.sha256(json.dumps([fields, data]).encode()).hexdigest()


@contextlib.contextmanager
def alone(workdir: str | os.PathLike[str]) -> Iterator[None]:
  """Keeps the workdir for this command: its main process holds the lock, the others come with it.

  Raises:
    UserError: the workdir is a file or cannot be made, or another command is at work in it.
  """
  check_place(workdir)
  with contextlib.ExitStack() as held:
    hosts.agree(lambda: held.enter_context(storage.lock(workdir)))
    yield


def check_place(workdir: str | os.PathLike[str]) -> epath.Path:
  """The workdir as a place.

  Raises:
    UserError: it is a file.
  """
  folder = storage.place(workdir)
  if folder.exists() and not folder.is_dir():
    raise UserError(f'--workdir={folder} is a file; expected a folder or a new name')
  return folder


def check_workdir(
  workdir: str | os.PathLike[str],
  config: Mapping[str, Any],
  *,
  run: str | None = None,
  ignore: Sequence[str] = (),
  write: bool = True,
) -> None:
  """Writes `config.json` into a new workdir; in an old one, refuses another config than the one it was made with.

  Args:
    workdir: folder of the run; made if it is not there.
    config: the resolved config, a ConfigDict or nested dict.
    run: what the workdir has to belong to, see `run_identity`.
    ignore: dotted fields that do not matter for results ('parallel' covers everything below it).
    write: False only compares: all processes but the first pass it.

  Raises:
    UserError: the workdir is a file or holds a study, its config.json cannot be read, the configs differ (the fields
      are named), or the data do.
  """
  folder = check_place(workdir)
  if (folder / LEDGER_FILE).exists():
    raise UserError(f'{folder} holds a study; go on with --mode=study, or choose another --workdir')
  if not (folder / CONFIG_FILE).exists():
    if write:
      write_config(folder, config, run)
    return
  old = read_sealed(folder)
  differing = [d for d in _differences(old.content, plain(config)) if not _covered(d[0], ignore)]
  if differing:
    shown = '; '.join(f'config.{name} is {_show(a)} there and {_show(b)} now' for name, a, b in differing[:4])
    more = f'; and {len(differing) - 4} more' if len(differing) > 4 else ''
    raise UserError(f'{folder} was made with another config: {shown}{more}; choose another --workdir or the old values')
  if run is not None and old.run != run:
    raise UserError(f'{folder} was made with other data; choose another --workdir, or bring the old data back')


def write_config(workdir: str | os.PathLike[str], config: Mapping[str, Any], run: str | None) -> None:
  """Writes `config.json`, which says what run the workdir belongs to."""
  sealed.write(storage.place(workdir) / CONFIG_FILE, plain(config), run=run)


def check_shared(workdir: str | os.PathLike[str]) -> None:
  """Raises UserError where another process cannot see the workdir: each writes its part of a checkpoint into it."""
  hosts.wait('workdir')
  if not (storage.place(workdir) / CONFIG_FILE).exists():
    raise UserError(
      f'--workdir={workdir} of process 0 is not there for process {jax.process_index()}; choose a folder that all'
      ' processes share (NFS, a mounted bucket)'
    )


def read_config(workdir: str | os.PathLike[str]) -> dict[str, Any]:
  """The config that a workdir was made with, as nested dicts (tuples have become lists); raises as `read_sealed`."""
  return read_sealed(workdir).content


def read_sealed(workdir: str | os.PathLike[str]) -> Sealed:
  """The config of a workdir, and the run that it belongs to.

  Raises:
    UserError: there is none, or it is damaged.
  """
  remedy = 'bring back a copy of it, or choose another --workdir'
  try:
    return sealed.read(storage.place(workdir) / CONFIG_FILE, remedy=remedy)
  except FileNotFoundError:
    raise UserError(f'{workdir} holds no {CONFIG_FILE}; expected a workdir that training has written') from None


def _leaves(value: Any, path: str = '') -> Iterator[tuple[str, Any]]:
  """(dotted name, value) of every field."""
  if isinstance(value, dict) and value:
    for key, inside in value.items():
      yield from _leaves(inside, f'{path}.{key}' if path else key)
  else:
    yield path, value


def _one_number(value: Any) -> Any:
  """The value with whole floats as ints, see `_differences`."""
  if isinstance(value, list):
    return [_one_number(inside) for inside in value]
  return int(value) if isinstance(value, float) and value.is_integer() else value


_ABSENT = object()


def _differences(old: Any, new: Any, path: str = '') -> list[tuple[str, Any, Any]]:
  if isinstance(old, dict) and isinstance(new, dict):
    return [
      difference
      for key in dict.fromkeys((*old, *new))
      for difference in _differences(old.get(key, _ABSENT), new.get(key, _ABSENT), f'{path}.{key}' if path else key)
    ]
  # 1 and 1.0 are one value to every field that takes either; True and 1 are not.
  same = old == new and isinstance(old, bool) == isinstance(new, bool)
  return [] if same else [(path, old, new)]


def _covered(path: str, ignore: Sequence[str]) -> bool:
  return any(path == name or path.startswith(f'{name}.') for name in ignore)


def _show(value: Any) -> str:
  if value is _ABSENT:
    return 'absent'
  text = json.dumps(value)
  return text if len(text) <= 60 else text[:57] + '...'
