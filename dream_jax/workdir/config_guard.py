"""A workdir belongs to one mode and one data set, that of a training to one config too: results speak of one thing."""

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
from dream_jax.workdir.sealed import Sealed, plain

CONFIG_FILE = 'config.json'
# Mode -> what its workdir holds, and what makes more of it.
_OWNERS = {
  'train': ('a training', '--mode=train'),
  'study': ('a study', '--mode=study'),
  'suite': ('a suite', '--mode=study and its config.suite'),
}
# What workdirs held at their root before every run had a folder of its own.
_EARLIER = ('study.jsonl', 'spec.json', 'methods', 'checkpoints', 'metrics.jsonl')


def run_identity(mode: str, config: Mapping[str, Any], data: str, *, ignore: Sequence[str]) -> str:
  """Who owns the files of a workdir: a mode, the data, and a hash of all of the config that decides results.

  Args:
    mode: 'train', 'study' or 'suite'.
    config: the resolved config, a ConfigDict or nested dict.
    data: fingerprint of the data.
    ignore: dotted fields that do not matter for results, as `check_config` takes them.
  """
  fields = sorted((name, _one_number(value)) for name, value in _leaves(plain(config)) if not _covered(name, ignore))
  return f'{mode} {data} {hashlib.sha256(json.dumps([fields, data]).encode()).hexdigest()}'


def is_study(run: str | None) -> bool:
  """Whether this is the identity of a study."""
  return (run or '').startswith('study ')


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


def claim(
  workdir: str | os.PathLike[str], config: Mapping[str, Any], *, mode: str, free: Sequence[str] | None, run: str
) -> None:
  """Makes a workdir that of a run, or checks that it is and writes down what is asked for now; see `check_config`.

  Raises:
    UserError: it belongs to something else.
  """
  folder = check_place(workdir)
  check_config(folder, config, mode=mode, free=free, run=run)
  if not (folder / CONFIG_FILE).exists():
    # Results whose config is gone still belong to somebody.
    with contextlib.suppress(FileNotFoundError):
      sealed.read(folder / 'results.json', run=run, remedy='choose another --workdir')
  write_config(folder, config, run)


def check_config(
  workdir: str | os.PathLike[str],
  config: Mapping[str, Any],
  *,
  mode: str,
  free: Sequence[str] | None,
  run: str | None = None,
) -> None:
  """Refuses a workdir that a command would mix with something else; an empty one is anybody's.

  Args:
    workdir: folder of the runs.
    config: the resolved config, a ConfigDict or nested dict.
    mode: 'train' or 'study'.
    free: dotted fields that may differ ('mesh' covers everything below it); None for all.
    run: see `run_identity`; None before the data are read.

  Raises:
    UserError: the workdir is a file, of another mode, of other data, or of an earlier version; its config.json cannot
      be read; or the configs differ (the fields are named).
  """
  folder = check_place(workdir)
  for name in _EARLIER:
    if (folder / name).exists():
      raise UserError(
        f'{folder} was made by an earlier version, which kept {name} there; choose another --workdir, or go on with'
        ' that version'
      )
  if not (folder / CONFIG_FILE).exists():
    return
  old = read_sealed(folder)
  was, _, rest = (old.run or '').partition(' ')
  if was != mode:
    what, how = _OWNERS.get(was, (None, ''))
    if what is None:
      raise UserError(f'{folder} was made by an earlier version; choose another --workdir, or go on with that version')
    raise UserError(f'{folder} holds {what}; go on with {how}, or choose another --workdir')
  differing = [d for d in _differences(old.content, plain(config)) if not _covered(d[0], free)] if free else []
  if differing:
    shown = '; '.join(f'config.{name} is {_show(a)} there and {_show(b)} now' for name, a, b in differing[:4])
    more = f'; and {len(differing) - 4} more' if len(differing) > 4 else ''
    raise UserError(f'{folder} was made with another config: {shown}{more}; choose another --workdir or the old values')
  if run is not None and rest.partition(' ')[0] != run.split(' ')[1]:
    raise UserError(
      f'{folder} was made with other data: samples, labels, features or their order have changed since; choose another'
      ' --workdir, or bring the old data back'
    )


def check_trained(workdir: str | os.PathLike[str]) -> None:
  """Raises UserError where there is nothing to evaluate."""
  if not (check_place(workdir) / CONFIG_FILE).exists():
    raise UserError(f'{workdir} holds no training to evaluate; run --mode=train with this --workdir first')


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
