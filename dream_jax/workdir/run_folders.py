"""Where the runs of a workdir lie: a folder each, whole in itself, named by method, training regime and key.

WORKDIR/runs/METHOD@REGIME-KEY/
  spec.json, spec.*.npz          what a predictor needs beside the parameters
  checkpoints/METHOD/best/STEP   the selected parameters; `state/STEP` while it trains
  methods/METHOD.*               what a finished run found, written last
  metrics.jsonl, tensorboard/    the log of its training

`results.json` names the runs that its figures are of. What is used or evaluated again is found through it, so that both
speak of one model, whatever has been trained since.
"""

import os
import re
from typing import Any

from etils import epath

from dream_jax.errors import UserError, did_you_mean
from dream_jax.workdir import method_files, sealed, storage

IN_RESULTS = 'runs'  # The field of `results.json`.
_FOLDER = 'runs'


def run_folder(workdir: str | os.PathLike[str], method: str, regime: str, key: str) -> str:
  """Where a run lies."""
  name = f'{storage.without_wildcards(method)}@{re.sub(r"[^A-Za-z0-9_.]+", "-", regime)}-{key[:12]}'
  return os.path.join(os.fspath(workdir), _FOLDER, name)


def others(folder: str) -> list[str]:
  """Names of the folders beside this one that are of the same method and regime and have another key."""
  stem = os.path.basename(folder).rpartition('-')[0]
  found = [path.name for path in _folders(os.path.dirname(os.path.dirname(folder)))]
  return [name for name in found if name.rpartition('-')[0] == stem and name != os.path.basename(folder)]


def named(method: str, regime: str, folder: str, key: str) -> dict[str, str]:
  """How `results.json` names a run."""
  return {'method': method, 'regime': regime, 'folder': f'{_FOLDER}/{os.path.basename(folder)}', 'key': key}


def of_results(workdir: str | os.PathLike[str]) -> list[dict[str, Any]]:
  """The runs that `results.json` names, that of the method under study first; none where there is no such file.

  Raises:
    UserError: the file is damaged, or is that of a suite.
  """
  return results_of(workdir).get(IN_RESULTS) or []


def results_of(workdir: str | os.PathLike[str]) -> dict[str, Any]:
  """The content of `results.json` of a training or a study; {} where there is no such file.

  Raises:
    UserError: the file is damaged, or is that of a suite.
  """
  path = storage.place(workdir) / method_files.RESULTS_FILE
  try:
    content = sealed.read(path, remedy='remove it and run the command of this workdir again').content
  except FileNotFoundError:
    return {}
  if content.get('mode') == 'suite':
    name, facts = next(iter(content['data'].items()))
    place = os.path.join(os.fspath(workdir), name, *(['division-1'] if facts['divisions'] > 1 else []))
    raise UserError(
      f'{workdir} holds a suite of several data sets; expected the workdir of one of them, such as {place}'
    )
  return content


def find(workdir: str | os.PathLike[str], method: str, regime: str | None = None) -> tuple[str, str]:
  """(folder, key) of the finished run of a method: the one that `results.json` names, else the only one there is.

  Args:
    workdir: the workdir.
    method: what was trained.
    regime: under which training regime; by default the first one that results name, or any if there are no results.

  Raises:
    UserError: there is none, there are several and no results to choose by, or files are damaged.
  """
  said = of_results(workdir)
  for run in said:
    if run['method'] == method and regime in (None, run['regime']):
      folder = os.path.join(os.fspath(workdir), run['folder'])
      method_files.read_method(folder, method, run=run['key'])  # Whole, and the one that is named.
      return folder, run['key']
  found = []
  for path in _folders(workdir):
    if path.name.startswith(f'{storage.without_wildcards(method)}@') and method_files.is_finished(str(path), method):
      made = method_files.read_method(str(path), method)
      if made.key and made.method == method and not made.search and regime in (None, made.regime):
        found.append((str(path), made.key))
  if len(found) == 1:
    return found[0]
  if found:
    places = ', '.join(os.path.basename(folder) for folder, _ in found)
    raise UserError(
      f'{workdir} holds {len(found)} finished runs of {method} ({places}) and no results that name one; run the command'
      ' of this workdir again: its results will'
    )
  under = f' under {regime}' if regime else ''
  have = sorted({f'{run["method"]} under {run["regime"]}' if regime else run['method'] for run in said})
  if have:
    raise UserError(f'{workdir} holds no finished {method!r}{under}; {did_you_mean(f"{method}{under}", have)}')
  raise UserError(f'{workdir} holds no finished {method!r}{under}; run its command again to finish it')


def _folders(workdir: str | os.PathLike[str]) -> list[epath.Path]:
  folder = storage.place(workdir) / _FOLDER
  return sorted(path for path in folder.iterdir() if path.is_dir()) if folder.is_dir() else []
