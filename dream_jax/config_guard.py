"""A workdir belongs to one config: continuing it with another would mix two experiments in one set of results."""

import json
import os
from collections.abc import Mapping, Sequence
from typing import Any

import jax
from etils import epath

from dream_jax import storage
from dream_jax.errors import UserError
from dream_jax.ledger import LEDGER_FILE
from dream_jax.parallel import hosts
from dream_jax.writers import plain, write_json

CONFIG_FILE = 'config.json'


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
  workdir: str | os.PathLike[str], config: Mapping[str, Any], *, ignore: Sequence[str] = (), write: bool = True
) -> None:
  """Writes `config.json` into a new workdir; in an old one, refuses another config than the one it was made with.

  Args:
    workdir: folder of the run; made if it is not there.
    config: the resolved config, a ConfigDict or nested dict.
    ignore: dotted fields that do not matter for results ('parallel' covers everything below it).
    write: False only compares: all processes but the first pass it.

  Raises:
    UserError: the workdir is a file, cannot be made or holds a study, its config.json cannot be read, or the configs
      differ; the fields are named.
  """
  folder = check_place(workdir)
  if (folder / LEDGER_FILE).exists():
    raise UserError(f'{folder} holds a study; go on with --mode=study, or choose another --workdir')
  new = plain(config)
  path = folder / CONFIG_FILE
  if not path.exists():
    if write:
      try:
        write_json(path, new)
      except (FileNotFoundError, FileExistsError, NotADirectoryError) as error:
        raise UserError(f'--workdir={folder} cannot be made ({error.strerror}); choose another place') from error
    return
  old = read_config(folder)
  differing = [d for d in _differences(old, new) if not _covered(d[0], ignore)]
  if differing:
    shown = '; '.join(f'config.{name} is {_show(a)} there and {_show(b)} now' for name, a, b in differing[:4])
    more = f'; and {len(differing) - 4} more' if len(differing) > 4 else ''
    raise UserError(f'{folder} was made with another config: {shown}{more}; choose another --workdir or the old values')


def check_shared(workdir: str | os.PathLike[str]) -> None:
  """Raises UserError where another process cannot see the workdir: each writes its part of a checkpoint into it."""
  hosts.wait('workdir')
  if not (storage.place(workdir) / CONFIG_FILE).exists():
    raise UserError(
      f'--workdir={workdir} of process 0 is not there for process {jax.process_index()}; choose a folder that all'
      ' processes share (NFS, a mounted bucket)'
    )


def read_config(workdir: str | os.PathLike[str]) -> dict[str, Any]:
  """The config that a workdir was made with, as nested dicts (tuples have become lists).

  Raises:
    UserError: there is none, or it cannot be read.
  """
  path = storage.place(workdir) / CONFIG_FILE
  try:
    config = json.loads(path.read_text(encoding='utf-8'))
  except FileNotFoundError:
    raise UserError(f'{workdir} holds no {CONFIG_FILE}; expected a workdir that training has written') from None
  except (ValueError, OSError) as error:
    raise UserError(f'{path} cannot be read ({error}); choose another --workdir') from error
  if not isinstance(config, dict):
    raise UserError(f'{path} holds {type(config).__name__}, expected an object; choose another --workdir')
  return config


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
