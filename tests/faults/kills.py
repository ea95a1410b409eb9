"""Kills: a command is struck at random moments and given again until it is done; the end must be the undisturbed one.

Half of the blows come at a random time, half before a random change to the files: renames and removals are where a kill
could leave something half done, and they take no time. A story is one workdir from its beginning to its end; what
happens in it follows from the seed and its number, but for times.
"""

import concurrent.futures
import contextlib
import dataclasses
import itertools
import os
import random
import re
import shutil
import signal
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from faults import essence, place, server
from faults.place import Place
from faults.tally import Failure, Tally

_SIGNALS = (signal.SIGKILL,) * 8 + (signal.SIGTERM, signal.SIGINT)
_STORY = 6  # Blows before a story is let go on to its end.
_PATIENCE = 900  # Seconds without an end, of a command that takes two; the machine may be busy.
_FAREWELL = 60  # Seconds in which all end when one of several processes is dead.
_IMPORTS = 6  # Seconds of a real process before it does anything.


@dataclasses.dataclass(frozen=True)
class Scenario:
  """A command that is struck.

  Attributes:
    flags: that it has beside those of a training.
    protocols: that it evaluates.
    finished: whether it starts from a finished training.
    prepares: whether it prepares the data, and is struck there.
    share: of all stories.
  """

  flags: tuple[str, ...] = ()
  protocols: str = place.PROTOCOLS
  finished: bool = False
  prepares: bool = False
  share: float = 1.0


SCENARIOS = {
  'prepare': Scenario(prepares=True, share=1.5),
  'train': Scenario(share=4),
  'study': Scenario(place.STUDY, share=2),
  'evaluate': Scenario(('--mode=evaluate',), protocols=place.OTHER_PROTOCOLS, finished=True),
  'report': Scenario(('--mode=report',), finished=True, share=0.7),
}
MODELS = ('concat',) * 8 + ('late+dropout', 'dream')


@dataclasses.dataclass(frozen=True)
class Blow:
  """When a command is struck.

  Attributes:
    signal: which one.
    change: before which change to the files, from 1; None for a time.
    seconds: after how many seconds.
    all: whether other processes of the program die with it.
  """

  signal: int
  change: int | None = None
  seconds: float = 0.0
  all: bool = True

  def __str__(self) -> str:
    when = f'before change {self.change}' if self.change else f'after {self.seconds:.2f} s'
    return f'{signal.Signals(self.signal).name} {when}'


@dataclasses.dataclass(frozen=True)
class Reference:
  """What an undisturbed run leaves, and how long it takes.

  Attributes:
    place: where it lies.
    essence: its content.
    parameters: what it selected.
    changes: it makes to the files.
    seconds: it takes.
  """

  place: Place
  essence: dict[str, Any]
  parameters: dict[str, str]
  changes: int
  seconds: float


class Bench:
  """Data, prepared data, compiled programs and undisturbed runs, shared by all stories."""

  def __init__(self, root: Path):
    """`root`: a folder that stays until the end."""
    self.root = root
    self.place = Place(root / 'reference', place.write_data(root / 'data'), root / 'prepared', root / 'compiled')
    self._references: dict[tuple[str, str, int], Reference] = {}
    self._locks: dict[Any, threading.Lock] = {}
    self._lock = threading.Lock()

  def reference(self, scenario: str, model: str, processes: int) -> Reference:
    """The undisturbed run of a scenario, made when first asked for."""
    key = (scenario, model, processes)
    with self._lock:
      lock = self._locks.setdefault(key, threading.Lock())
    with lock:
      if key not in self._references:
        self._references[key] = self._undisturbed(*key)
      return self._references[key]

  def start(self, scenario: str, model: str, processes: int, root: Path) -> Place:
    """A place where the scenario may begin."""
    wanted = SCENARIOS[scenario]
    prepared = root / 'prepared' if wanted.prepares else None
    if wanted.finished:
      return self.reference('train', model, processes).place.again(root)
    return dataclasses.replace(self.place, model=model).again(root, prepared=prepared)

  def _undisturbed(self, scenario: str, model: str, processes: int) -> Reference:
    root = self.root / 'references' / f'{scenario}-{model}-{processes}'
    for attempt in range(2):  # The first compiles and, for most, prepares; the second is timed.
      here = self.start(scenario, model, processes, root)
      begin = time.monotonic()
      attempts = _attempt(self, scenario, here, processes, None, root / f'said-{attempt}')
      codes = [child.wait(20 * _PATIENCE) for child in attempts]
      if any(codes):
        raise RuntimeError(f'{scenario} of {model} ended with {codes}, undisturbed: {attempts[0].text[-2000:]}')
      seconds = time.monotonic() - begin
    changes = int((root / 'said-1.changes').read_text())
    parameters = server.call(essence.parameters, str(here.workdir), output=root / 'parameters')
    return Reference(here, essence.essence(here), parameters, changes, seconds)


def struck(argv: list[str], folder: str, change: int | None, number: int, counted: str) -> None:
  """A command that sends itself a signal before its so-manieth change to a folder; it counts them.

  Args:
    argv: of the command line.
    folder: whose changes count.
    change: which one, from 1; None for none.
    number: of the signal.
    counted: file for the number of changes of a run that ends.
  """
  seen = itertools.count(1)

  def hook(event: str, args: tuple[Any, ...]) -> None:
    if _changes(event, args, folder) and next(seen) == change:
      os.kill(os.getpid(), number)

  sys.addaudithook(hook)
  try:
    server.command(argv)
  finally:
    Path(counted).write_text(str(next(seen) - 1))


def _changes(event: str, args: tuple[Any, ...], folder: str) -> bool:
  """Whether Python is about to change something below a folder."""
  if event == 'open':
    changing = bool((args[2] or 0) & (os.O_WRONLY | os.O_RDWR | os.O_CREAT))
  else:
    changing = event in ('os.rename', 'os.remove', 'os.mkdir', 'os.rmdir', 'os.truncate', 'os.link', 'os.symlink')
  return changing and any(isinstance(a, str | os.PathLike) and os.fspath(a).startswith(folder) for a in args[:2])


def _attempt(
  bench: Bench, scenario: str, here: Place, processes: int, blow: Blow | None, output: Path, *, real: bool = False
) -> list[Any]:
  """The processes of one command, at work; the first of them is the one to be struck."""
  wanted = SCENARIOS[scenario]
  argv = here.command(*wanted.flags, protocols=wanted.protocols)
  folder = str(here.prepared if wanted.prepares else here.workdir)
  address = f'--coordinator=127.0.0.1:{server.free_port()}'
  children = []
  victim = blow.change if blow and processes > 1 and blow.change else 0
  for i in range(processes):
    index = (i + victim) % processes
    own = [address, f'--num_processes={processes}', f'--process_id={index}'] if processes > 1 else []
    said = output.with_name(f'{output.name}-{i}') if i else output
    if real:
      children.append(server.Real([*argv, *own], output=said))
      continue
    change = blow.change if blow and not i else None
    number = blow.signal if blow else signal.SIGKILL
    counted = str(said.with_name(f'{said.name}.changes'))
    children.append(server.Child(struck, [*argv, *own], folder, change, number, counted, output=said))
  return children


@dataclasses.dataclass(frozen=True)
class Draws:
  """What stories are drawn from.

  Attributes:
    seed: of all that is drawn.
    processes: of every command; None for one, and now and then two.
    scenario: one of `SCENARIOS`; all if None.
    models: methods under study, each as often as it stands there.
    real: share of stories whose processes are started anew, imports and all.
  """

  seed: int
  processes: int | None = 1
  scenario: str | None = None
  models: tuple[str, ...] = MODELS
  real: float = 0.04


class _Story:
  """One workdir from its beginning to its end."""

  def __init__(self, bench: Bench, tally: Tally, draws: 'Draws', number: int):
    self._rng = rng = random.Random(f'{draws.seed}/{number}')
    drawn = rng.choices(list(SCENARIOS), [s.share for s in SCENARIOS.values()])[0]
    self.scenario = draws.scenario or drawn
    self._model = rng.choice(draws.models)
    processes = draws.processes or rng.choices((1, 2), (5, 1))[0]
    self._processes = processes
    self._real = rng.random() < draws.real and processes == 1
    self._bench, self._tally = bench, tally
    self._what = f'{self.scenario} of {self._model}, {processes} process{"es" if processes > 1 else ""}' + (
      ', started anew' if self._real else ''
    )
    self._where = f'--seed={draws.seed} --story={number}: {self._what}'
    self.root = bench.root / 'stories' / str(number)
    self.blows = 0
    self.failed = False

  def tell(self, most: int) -> None:
    """Strikes it at most so often, lets it end and looks at what it left."""
    bench, where = self._bench, (self.scenario, self._model, self._processes)
    self._reference = bench.reference(*where)
    self._here = here = bench.start(*where, self.root)
    for number in itertools.count():
      blow = self._blow() if self.blows < most else None
      children = _attempt(
        bench, self.scenario, here, self._processes, blow, self.root / 'said' / f'{number}', real=self._real
      )
      done = self._watch(children, blow)
      if self.failed or done:
        break
    if not self.failed:
      self._compare()
    if not self.failed:
      self._tally.count('ends identical', self._what)
      shutil.rmtree(self.root)

  def _blow(self) -> Blow:
    rng, reference = self._rng, self._reference
    number, change = rng.choice(_SIGNALS), rng.randint(1, max(1, reference.changes))
    length = reference.seconds + (_IMPORTS if self._real else 0)
    # The very first moments are few, and their own: a quarter of the times falls into a tenth of the run.
    seconds = rng.uniform(0.02, length * (0.1 if rng.random() < 0.25 else 1.1))
    by_change = rng.random() < 0.5 and not self._real
    return Blow(number, change if by_change else None, seconds, rng.random() < 0.8)

  def _watch(self, children: list[Any], blow: Blow | None) -> bool:
    """Strikes and waits; whether the command was done before."""
    first = children[0]
    if blow and blow.change is None:
      first.wait(blow.seconds)
      if first.wait(0) is None:
        first.send(blow.signal)
    code = first.wait(_PATIENCE)
    if code == 255 and blow and blow.signal == signal.SIGKILL:  # The fork server lost the status; we never end so.
      code = -signal.SIGKILL
    if blow and blow.all and code is not None and code != 0:
      for other in children[1:]:
        other.send(signal.SIGKILL)
    begin = time.monotonic()
    codes = [code, *(other.wait(_PATIENCE) for other in children[1:])]
    late = len(children) > 1 and time.monotonic() - begin > _FAREWELL
    if None in codes or late:
      for child in children:
        child.stop()
      slow = children[codes.index(None) if None in codes else -1]
      self._fail('hang' if None in codes else 'late end', f'{blow}: {codes}; {slow.text[-1500:]}')
      return False
    text = first.text
    stopped = code != 0 or 'SIGTERM' in text
    if blow and (stopped or blow.signal == signal.SIGKILL == -(code or 0)):
      self.blows += 1
      self._tally.count('struck while', f'{self.scenario}: {_phase(text, self._here, first)}')
      alone = ' to one of two' if len(children) > 1 and not blow.all else ''
      self._tally.count('signals', signal.Signals(blow.signal).name + alone)
    self._check(code, text, blow)
    return not stopped

  def _check(self, code: int, text: str, blow: Blow | None) -> None:
    """What is wrong after any end."""
    expected = {0}
    if blow:
      expected |= {
        signal.SIGKILL: {-signal.SIGKILL},
        signal.SIGTERM: {-signal.SIGTERM},
        signal.SIGINT: {130, -signal.SIGINT},
      }[signal.Signals(blow.signal)]
    if 'Traceback (most' in text:
      self._fail('traceback', f'{blow}: {" ".join(text[-600:].split())}')
    elif code not in expected:
      self._fail('exit code', f'{code} after {blow}: {" ".join(text[-600:].split())}')
    for name in essence.torn(self._here.workdir):
      self._fail('torn file', f'{name} after {blow}')

  def _compare(self) -> None:
    here, reference = self._here, self._reference
    different = essence.differences(essence.essence(here), reference.essence)
    parameters = server.call(essence.parameters, str(here.workdir), output=self.root / 'parameters')
    different += essence.differences(parameters, reference.parameters)
    if different:
      self._fail('another end', f'{len(different)} differences: {"; ".join(different[:4])}')
    for name in _names(here.workdir) - _names(reference.place.workdir):
      self._tally.count('left behind', name)

  def _fail(self, kind: str, said: str) -> None:
    self.failed = True
    self._tally.fail(Failure(kind, self._where, ' '.join(said.split()), str(self.root)))


def run(
  bench: Bench,
  tally: Tally,
  draws: Draws,
  *,
  kills: int,
  story: int | None = None,
  first: int = 0,
  workers: int = 2,
) -> None:
  """Tells stories until so many blows have fallen.

  Args:
    bench: what they share.
    tally: where they are counted.
    draws: what they are drawn from.
    kills: how many blows.
    story: only this one.
    first: the story to begin with, where an earlier soak of these draws ended.
    workers: stories told at a time.
  """
  left, lock = [kills], threading.Lock()
  numbers = itertools.count(first) if story is None else iter([story])

  def tell() -> None:
    while not tally.hopeless:
      with lock:
        number, mine = next(numbers, None), min(_STORY, left[0])
        if number is None or mine <= 0:
          return
        left[0] -= mine
      told = _Story(bench, tally, draws, number)
      try:
        told.tell(mine)
      except RuntimeError as error:
        tally.fail(Failure('no reference', f'--seed={draws.seed} --story={number}', ' '.join(str(error).split())))
        return
      with lock:
        left[0] += mine - told.blows

  with concurrent.futures.ThreadPoolExecutor(workers) as pool:
    try:
      for done in [pool.submit(tell) for _ in range(workers)]:
        done.result()
    except KeyboardInterrupt:
      left[0] = 0  # The stories that are being told come to their end.
      raise


_LINES = (
  (r'results: ', 'done'),
  (r'preparing ', 'preparation'),
  (r'.*: compiling$', 'compilation'),
  (r'.* step (\d+)/\1\b', 'evaluation and calibration'),
  (r'.* step ', 'training'),
  (r'.*: (evaluated|finished before|compiled in)', 'between methods, or results'),
  (r'\[\d+/\d+\] ', 'between runs, or results'),
)


def _phase(text: str, here: Place, child: Any) -> str:
  """Where a command was, from what it printed and what lies in its folder."""
  lines = text.strip().splitlines()
  results = here.workdir / 'results.json'
  if results.exists() and results.stat().st_mtime >= child.born:
    return 'report'
  if any(p.stat().st_mtime >= child.born for p in _standing(here.workdir.glob('**/*orbax-checkpoint-tmp*'))):
    return 'a save'
  for line in reversed(lines):
    for pattern, name in _LINES:
      if re.match(pattern, line):
        return name
  return 'start' if not lines else 'reading data'


def _standing(paths: Iterator[Path]) -> Iterator[Path]:
  with contextlib.suppress(FileNotFoundError):
    yield from (p for p in paths if p.exists())


def _names(workdir: Path) -> set[str]:
  """What lies there, numbers apart; logs for the eye and programs differ."""
  found = {p.relative_to(workdir).as_posix() for p in workdir.rglob('*') if p.is_file()}
  kept = (n for n in found if not n.startswith(('tensorboard', 'xla_cache')) and '/tensorboard/' not in n)
  return {re.sub(r'[0-9a-f]{12,}|\d+', 'N', n) for n in kept}
