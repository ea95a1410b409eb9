"""Damage: every file that a workdir holds and the program reads back, spoiled, then read by every command.

What comes out must be what an unspoiled workdir gives, or one line and exit code 2. Anything else is a fault: a
traceback, or another result that nobody was told of.
"""

import concurrent.futures
import dataclasses
import hashlib
import random
import shutil
import signal
import sys
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from faults import essence, kills, place, server
from faults.place import Place
from faults.tally import Failure, Tally

_PATIENCE = 120
# What no command reads.
_UNREAD = ('tensorboard', 'figures', 'report.html', '.lock')


def flip(content: bytes, rng: random.Random, _: bytes) -> bytes:
  """One byte is another."""
  if not content:
    return b'\0'
  where = rng.randrange(len(content))
  return content[:where] + bytes([content[where] ^ rng.choice((1, 2, 4, 0x80, 0xFF))]) + content[where + 1 :]


def truncate(content: bytes, rng: random.Random, _: bytes) -> bytes:
  """The end is gone."""
  return content[: rng.randrange(max(1, len(content)))]


def empty(*_: Any) -> bytes:
  """Nothing is left."""
  return b''


def delete(*_: Any) -> None:
  """The file is gone."""


def swap(_: bytes, rng: random.Random, other: bytes) -> bytes:
  """It is that of another run with the same shapes."""
  del rng
  return other


DAMAGES: dict[str, Callable[..., bytes | None]] = {f.__name__: f for f in (flip, truncate, empty, delete, swap)}


@dataclasses.dataclass(frozen=True)
class Case:
  """One damage and who reads it.

  Attributes:
    workdir: which of `Bench.workdirs`.
    unit: file, or folder of a checkpoint, relative to it.
    how: one of DAMAGES.
    reader: one of READERS.
  """

  workdir: str
  unit: str
  how: str
  reader: str

  def __str__(self) -> str:
    return f'{self.workdir}/{self.unit}, {self.how}, read by {self.reader}'


# Command line of every reader; what `load` and `data` do is a function.
READERS: dict[str, tuple[str, ...] | None] = {
  'train': (),
  'evaluate': ('--mode=evaluate',),
  'report': ('--mode=report',),
  'study': place.STUDY,
  'load': None,
  'data': None,
}
_READ_BY = {
  'finished': ('train', 'evaluate', 'report', 'load'),
  'half': ('train',),
  'finished study': ('study', 'report'),
  'half study': ('study',),
  'prepared': ('data',),
  'compiled': ('evaluate',),
}


class Bench:
  """Workdirs to spoil, others to swap with, and what each reader finds in an unspoiled one."""

  def __init__(self, root: Path):
    """`root`: a folder that stays until the end."""
    self.root = root
    self._own = kills.Bench(root).place
    other = place.write_data(root / 'other-data', seed=1)
    self._theirs = dataclasses.replace(self._own, data=other, prepared=root / 'other-prepared')
    self._made: dict[tuple[str, bool], Place] = {}
    self._changes: dict[bool, int] = {}
    self._expected: dict[tuple[str, str], Any] = {}

  def place(self, name: str, *, other: bool = False) -> Place:
    """A workdir, made when first asked for: finished, or killed after some of its saves; `other`: to swap with."""
    if name in ('prepared', 'compiled'):
      return self.place('finished', other=other)
    if (name, other) not in self._made:
      here = (self._theirs if other else self._own).again(self.root / ('other' if other else 'own') / name)
      flags = (*(place.STUDY if 'study' in name else ()), *(('--config.seed=7',) if other else ()))
      change = None
      if name.startswith('half'):
        self.place(name.replace('half', 'finished'))
        change = int(0.6 * self._changes['study' in name])
      changes = self._run(here, flags, change)
      if not change and not other:
        self._changes['study' in name] = changes
      self._made[name, other] = here
    return self._made[name, other]

  def _run(self, here: Place, flags: tuple[str, ...], change: int | None) -> int:
    """Runs a command, until a change to the files if one is given; how many there were."""
    counted, said = here.root / 'changes', here.root / 'said'
    argv = here.command(*flags)
    child = server.Child(kills.struck, argv, str(here.workdir), change, signal.SIGKILL, str(counted), output=said)
    code = child.wait(20 * _PATIENCE)
    if code != (-signal.SIGKILL if change else 0):
      raise RuntimeError(f'{flags} ended with {code}: {child.text[-2000:]}')
    return 0 if change else int(counted.read_text())

  def cases(self, workdirs: Iterable[str] = _READ_BY, readers: Iterable[str] = READERS) -> list[Case]:
    """All there are of these workdirs and readers, in an order of their own."""
    found = []
    for name in workdirs:
      folder = _folder(self.place(name), name)
      for unit in _units(folder):
        hows = DAMAGES if (folder / unit).is_file() else ('delete', 'swap')
        by = [reader for reader in _READ_BY[name] if reader in readers and _reads(reader, unit)]
        found += [Case(name, unit, how, reader) for how in hows for reader in by]
    return sorted(found, key=lambda case: hashlib.sha256(str(case).encode()).digest())

  def copy(self, case: Case, root: Path) -> Place:
    """A place to spoil."""
    here = self.place(case.workdir).again(root)
    for part in ('prepared', 'compiled'):
      if case.workdir == part:
        shutil.copytree(getattr(here, part), root / part)
        here = dataclasses.replace(here, **{part: root / part})
    return here

  def spoil(self, case: Case, here: Place, rng: random.Random) -> Path:
    """Does the damage; the path that was spoiled."""
    path = _folder(here, case.workdir) / case.unit
    other = self.counterpart(case)
    if path.is_dir():
      shutil.rmtree(path)
      if case.how == 'swap':
        shutil.copytree(other, path)
      return path
    content = DAMAGES[case.how](path.read_bytes(), rng, other.read_bytes() if other else b'')
    path.unlink()
    if content is not None:
      path.write_bytes(content)
    return path

  def counterpart(self, case: Case) -> Path | None:
    """The same file of the other run; where names are hashes, the one in the same place of the order."""
    mine = _folder(self.place(case.workdir), case.workdir)
    if case.workdir == 'compiled':  # Another program.
      names = sorted(p.name for p in mine.iterdir())
      return mine / names[(names.index(case.unit) + 1) % len(names)]
    theirs = _folder(self.place(case.workdir.replace('half', 'finished'), other=True), case.workdir)
    for part in Path(case.unit).parts:
      if not (theirs / part).exists():
        names, others = (sorted(p.name for p in folder.iterdir()) for folder in (mine, theirs))
        if not others:
          return None
        theirs = theirs / others[min(names.index(part), len(others) - 1)]
      else:
        theirs = theirs / part
      mine = mine / part
      if not theirs.is_dir():
        break
    return theirs if theirs.is_file() == mine.is_file() else None

  def expected(self, case: Case) -> Any:
    """What the reader finds in the unspoiled workdir."""
    key = (case.workdir, case.reader)
    if key not in self._expected:
      here = self.copy(case, self.root / 'expected' / case.workdir / case.reader)
      code, text, found = read(case, here)
      if code != 0:
        raise RuntimeError(f'{case.reader} of an unspoiled {case.workdir} ended with {code}: {text[-2000:]}')
      self._expected[key] = found
    return self._expected[key]


def _folder(here: Place, name: str) -> Path:
  return {'prepared': here.prepared, 'compiled': here.compiled}.get(name, here.workdir)


def _units(folder: Path) -> Iterator[str]:
  """Files that are read back, and whole saves."""
  for path in sorted(folder.rglob('*')):
    unit = path.relative_to(folder)
    read_back = not any(part in _UNREAD for part in unit.parts)
    if read_back and (path.is_file() or (path.name.isdigit() and path.parent.name in ('state', 'best'))):
      yield unit.as_posix()


def _reads(reader: str, unit: str) -> bool:
  """Whether there is any sense in it: reports are made of results, and only training goes on from a state."""
  if reader == 'report':
    return '/' not in unit
  return reader not in ('load', 'evaluate') or '/state/' not in unit


def read(case: Case, here: Place) -> tuple[int | None, str, dict[str, Any]]:
  """(exit code, what was printed, what was found) of a reader."""
  flags, said = READERS[case.reader], here.root / 'said'
  if case.reader == 'load':
    child = server.Child(loaded, str(here.workdir), output=said)
  elif case.reader == 'data':
    child = server.Child(prepared_data, str(here.data), str(here.prepared), output=said)
  else:
    assert flags is not None
    child = server.Child(server.command, here.command(*flags), output=said)
  code = child.wait(_PATIENCE)
  if code is None:
    child.stop()
  if code != 0:
    return code, child.text, {}
  if flags is None:
    return code, child.text, child.value
  found = essence.essence(here)
  if case.workdir.startswith('half'):
    selected = server.call(essence.parameters, str(here.workdir), output=here.root / 'parameters')
    found['parameters'] = {name: value for name, value in selected.items() if '/best/' in name}
  if case.reader == 'report':
    found['text'] = [line for line in child.text.replace(str(here.root), 'ROOT').splitlines() if 'seconds' not in line]
  return code, child.text, found


def loaded(workdir: str) -> dict[str, Any]:
  """What a loaded model is and says; exit code 2 with one line where it is refused."""
  import dream_jax
  from dream_jax.errors import UserError

  inputs = {name: values[:3] for name, values in place.arrays().items() if name.startswith(('pulse', 'pose', 'words'))}
  try:
    predictor = dream_jax.load(workdir)
    outputs = predictor(inputs)
    explained = predictor.explain(inputs)
  except UserError as error:
    print(f'dream_jax: {error}', file=sys.stderr)
    sys.exit(2)
  return {
    'prediction': np.asarray(outputs.prediction).astype(float).tolist(),
    'explained': [{key: str(value) for key, value in row.items()} for row in explained],
    'calibration': str(predictor.calibration),
    'spec': str(predictor.spec),
    'seed': predictor.seed,
  }


def prepared_data(folder: str, prepared: str) -> dict[str, str]:
  """Hashes of all arrays of the prepared data set; exit code 2 with one line where it is refused."""
  from dream_jax.data.datasets import load_dataset
  from dream_jax.errors import UserError

  try:
    dataset = load_dataset('folder', folder=folder, tfds_dir=prepared)
  except UserError as error:
    print(f'dream_jax: {error}', file=sys.stderr)
    sys.exit(2)
  found = {'spec': str(dataset.spec), 'non_finite': str(dataset.non_finite)}
  for name, split in dataset.splits.items():
    arrays = {'ids': split.ids, 'label': split.label, **split.features, **split.extras}
    found |= {f'{name}/{key}': essence.hash_of(value) for key, value in arrays.items()}
  return found


def run(bench: Bench, tally: Tally, cases: list[Case], *, seed: int, workers: int = 2) -> None:
  """Tries the cases."""

  def attempt(case: Case) -> None:
    if not tally.hopeless:
      _try(bench, tally, case, seed)

  for case in cases:  # One after another: they share what is compiled.
    bench.expected(case)
  with concurrent.futures.ThreadPoolExecutor(workers) as pool:
    list(pool.map(attempt, cases))


def _try(bench: Bench, tally: Tally, case: Case, seed: int) -> None:
  if case.how == 'swap' and bench.counterpart(case) is None:
    tally.count('outcomes', 'nothing to swap with')
    return
  root = bench.root / 'cases' / hashlib.sha256(str(case).encode()).hexdigest()[:12]
  here = bench.copy(case, root)
  spoiled = bench.spoil(case, here, random.Random(f'{seed}/{case}'))
  mark = _mark(spoiled)
  code, text, found = read(case, here)
  outcome, said = 'the same', ''
  refusals = [line for line in text.splitlines() if line.startswith('dream_jax: ')]
  if code is None:
    outcome, said = 'hang', text[-300:]
  elif 'Traceback (most' in text or code not in (0, 2):
    outcome, said = 'traceback', f'exit {code}: {text[-300:]}'
  elif code == 2:
    one_line = len(refusals) == 1 and text.strip().splitlines()[-1] == refusals[0]
    outcome = 'refused' if one_line else 'refused, not in one line'
    said = '' if outcome == 'refused' else text[-300:]
  else:
    different = essence.differences(found, bench.expected(case))
    if _mark(spoiled) == mark:  # Nobody wrote it anew: that it is spoiled is our doing.
      different = [d for d in different if not d.startswith(f'/{case.unit}')]
    if different:
      outcome, said = 'silently another result', f'{len(different)} differences: {"; ".join(different[:3])}'
  tally.count('outcomes', f'{case.reader}: {outcome}')
  if said:
    tally.fail(Failure(outcome, f'--damage --seed={seed}: {case}', ' '.join(said.split()), str(root)))
  else:
    shutil.rmtree(root)


def _mark(path: Path) -> str:
  """Content of a file, or of a folder, in short."""
  files = [path] if path.is_file() else sorted(p for p in path.rglob('*') if p.is_file())
  return hashlib.sha256(b''.join(p.read_bytes() for p in files)).hexdigest() if path.exists() else ''
