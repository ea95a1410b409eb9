"""Pressure: a machine that is full, read-only, short of memory or wrong about the time, and two commands at once.

The command says so in one line, or does its work all the same; and with room again the same command comes to the end
that it would have come to.
"""

import contextlib
import dataclasses
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from faults import essence, kills, server
from faults.place import Place
from faults.server import Child, Limits
from faults.tally import Failure, Tally

_PATIENCE = 240
_GIGABYTE = 1 << 30


class NoMountsError(Exception):
  """This process may not mount anything."""


@contextlib.contextmanager
def disk(folder: Path, megabytes: float) -> Iterator[Callable[[str], None]]:
  """A disk of that size at `folder`; what is given changes it, as in 'size=64m' or 'ro'.

  Raises:
    NoMountsError: it cannot be made.
  """
  folder.mkdir(parents=True, exist_ok=True)
  if subprocess.run(
    ['mount', '-t', 'tmpfs', '-o', f'size={int(megabytes * 1024)}k', 'tmpfs', str(folder)], capture_output=True
  ).returncode:
    raise NoMountsError

  def change(options: str) -> None:
    subprocess.run(['mount', '-o', f'remount,{options}', str(folder)], check=True, capture_output=True)

  try:
    yield change
  finally:
    subprocess.run(['umount', '-l', str(folder)], check=False, capture_output=True)


def with_clock(argv: list[str], seconds: float, jump: int) -> None:
  """A command on a machine whose clock is set forward or back, from its so-manieth look at it on."""
  true, looks = time.time, 0

  def told() -> float:
    nonlocal looks
    looks += 1
    return true() + (seconds if looks > jump else 0)

  time.time = told
  server.command(argv)


def slow_to_finish(argv: list[str], seconds: float) -> None:
  """A command that takes its time before it gives prepared data their name."""

  def hook(event: str, args: tuple[Any, ...]) -> None:
    if event == 'os.rename' and 'incomplete' in os.path.basename(os.fspath(args[0])):
      time.sleep(seconds)

  sys.addaudithook(hook)
  server.command(argv)


class Bench:
  """What all cases share."""

  def __init__(self, bench: kills.Bench, tally: Tally):
    """`bench`: of kills, whose undisturbed training is the end that is expected."""
    self.bench, self.tally = bench, tally
    self.reference = bench.reference('train', 'concat', 1)

  def start(self, name: str, **changes: Any) -> Place:
    """A place to begin in."""
    return dataclasses.replace(self.bench.start('train', 'concat', 1, self.bench.root / 'pressure' / name), **changes)

  def half(self, name: str) -> Place:
    """A place where a training was killed after some of its saves."""
    here = self.start(name)
    change, said = int(self.reference.changes * 0.6), here.root / 'first'
    self.end(Child(kills.struck, here.command(), str(here.workdir), change, signal.SIGKILL, f'{said}.n', output=said))
    return here

  def end(self, child: Child | server.Real) -> int | None:
    """Its exit code."""
    code = child.wait(_PATIENCE)
    if code is None:
      child.stop()
    return code

  def judge(self, name: str, child: Child | server.Real, *, may: tuple[int, ...] = (0, 2)) -> int | None:
    """Its exit code; counts what it said."""
    code, text = self.end(child), child.text
    what = {None: 'hang', 0: 'done', 2: 'refused'}.get(code, f'exit {code}')
    if 'Traceback (most' in text:
      what = 'traceback'
    elif code == 2 and sum(line.startswith('dream_jax: ') for line in text.splitlines()) != 1:
      what = 'refused, not in one line'
    self.tally.count('outcomes', f'{name}: {what}')
    if code not in may or what in ('traceback', 'refused, not in one line'):
      self.tally.fail(Failure(what, name, ' '.join(f'exit {code}: {text[-700:]}'.split())))
    return code

  def finish(self, name: str, here: Place) -> None:
    """The same command with room: it has to come to the expected end."""
    last = Child(server.command, here.command(), output=here.root / 'last')
    if self.judge(f'{name}, with room', last, may=(0,)) != 0:
      return
    different = essence.differences(essence.essence(here), self.reference.essence)
    parameters = server.call(essence.parameters, str(here.workdir), output=here.root / 'parameters')
    different += essence.differences(parameters, self.reference.parameters)
    if different:
      self.tally.fail(Failure('another end', name, f'{len(different)} differences: {"; ".join(different[:4])}'))


def full_disk(bench: Bench, megabytes: float = 0.15) -> None:
  """Full in the middle of a training."""
  name = f'full disk of {megabytes} MB'
  with disk(bench.bench.root / 'disk', megabytes) as change:
    here = bench.start(f'full-{megabytes}')
    here = dataclasses.replace(here, root=bench.bench.root / 'disk')
    bench.judge(name, Child(server.command, here.command(), output=bench.bench.root / 'pressure' / 'said'))
    change('size=256m')
    bench.finish(name, here)


def full_for_preparation(bench: Bench) -> None:
  """No room for the prepared data."""
  with disk(bench.bench.root / 'disk', 0.02) as change:
    here = bench.start('preparation', prepared=bench.bench.root / 'disk' / 'prepared')
    bench.judge('full while preparing', Child(server.command, here.command(), output=here.root / 'said'))
    change('size=256m')
    bench.finish('full while preparing', here)


def full_for_programs(bench: Bench) -> None:
  """No room for compiled programs, which no result needs."""
  with disk(bench.bench.root / 'disk', 0.02) as change:
    here = bench.start('programs', compiled=bench.bench.root / 'disk' / 'compiled')
    bench.judge('full for programs', Child(server.command, here.command(), output=here.root / 'said'))
    change('size=256m')
    bench.finish('full for programs', here)


def small_files(bench: Bench) -> None:
  """Files of more than a few kilobytes are refused, as by a quota."""
  here = bench.start('small-files')
  limits = Limits(file=20_000)
  bench.judge('small files', Child(server.command, here.command(), output=here.root / 'said', limits=limits))
  bench.finish('small files', here)


def read_only(bench: Bench) -> None:
  """A workdir that was begun and cannot be written any more."""
  with disk(bench.bench.root / 'disk', 64) as change:
    here = dataclasses.replace(bench.start('read-only'), root=bench.bench.root / 'disk')
    said = bench.bench.root / 'pressure' / 'said'
    at = int(bench.reference.changes * 0.6)
    bench.end(Child(kills.struck, here.command(), str(here.workdir), at, signal.SIGKILL, f'{said}.n', output=said))
    change('ro')
    bench.judge('read-only', Child(server.command, here.command(), output=said), may=(2,))
    change('rw')
    bench.finish('read-only', here)


def no_home(bench: Bench) -> None:
  """Nobody's home, as of users that containers make up; a process of its own, for homes are asked for on import."""
  here, environment = bench.start('no-home'), {'HOME': '/proc/none', 'XDG_CACHE_HOME': None, 'TFDS_DATA_DIR': None}
  argv, said = here.command(), here.root / 'said'
  bench.judge('no home', server.Real(argv, output=said, environment=environment), may=(0,))
  bench.finish('no home', here)
  nowhere = [a for a in here.again(bench.bench.root / 'pressure' / 'nowhere').command() if 'tfds_dir' not in a]
  bench.judge('no home, no folder for data', server.Real(nowhere, output=said, environment=environment), may=(2,))


def little_memory(bench: Bench) -> None:
  """Less memory than the work takes: native code that gets none aborts, and whoever comes next finds all as it was."""
  here = bench.start('memory')
  child = Child(server.command, here.command(), output=here.root / 'said', limits=Limits(memory=3 * _GIGABYTE))
  bench.judge('little memory', child, may=(0, 2, -signal.SIGABRT))
  bench.finish('little memory', here)


def clock_set_back(bench: Bench) -> None:
  """It is yesterday when the run goes on, and last year in the middle of it."""
  for name, seconds, jump in (('yesterday', -86_400.0, 0), ('last year', -3e7, 40)):
    here = bench.half(f'clock-{jump}')
    child = Child(with_clock, here.command(), seconds, jump, output=here.root / 'said')
    bench.judge(f'clock set back: {name}', child, may=(0,))
    bench.finish(f'clock set back: {name}', here)


def two_at_once(bench: Bench) -> None:
  """Two trainings in one workdir: one of them may be refused, and the end is one."""
  here = bench.start('two')
  both = [Child(server.command, here.command(), output=here.root / f'said-{i}') for i in range(2)]
  codes = [bench.judge('two trainings at once', child) for child in both]
  if codes == [2, 2]:
    bench.tally.fail(Failure('nobody worked', 'two trainings at once', 'both were refused'))
  bench.finish('two trainings at once', here)


def two_preparations(bench: Bench) -> None:
  """A command needs the data that another one is preparing at that moment."""
  one = bench.start('prepare-1', prepared=bench.bench.root / 'pressure' / 'both-prepared')
  two = bench.start('prepare-2', prepared=one.prepared)
  first = Child(slow_to_finish, one.command(), 8.0, output=one.root / 'said')
  while first.wait(0.001) is None and not any(one.prepared.rglob('*incomplete*')):
    pass
  second = Child(server.command, two.command(), output=two.root / 'said')
  for child in (first, second):
    bench.judge('two preparations at once', child, may=(0,))
  for here in (one, two):
    bench.finish('two preparations at once', here)


CASES = {
  case.__name__: case
  for case in (
    full_disk,
    full_for_preparation,
    full_for_programs,
    small_files,
    read_only,
    no_home,
    little_memory,
    clock_set_back,
    two_at_once,
    two_preparations,
  )
}


def run(bench: kills.Bench, tally: Tally, names: tuple[str, ...] = tuple(CASES)) -> None:
  """Tries the cases, and three sizes of a disk."""
  shared = Bench(bench, tally)
  for name in names:
    try:
      CASES[name](shared)
      if name == 'full_disk':
        for megabytes in (0.004, 0.04, 0.3):
          full_disk(shared, megabytes)
    except NoMountsError:
      tally.count('outcomes', f'{name}: not tried, no right to mount')
    except RuntimeError as error:
      tally.fail(Failure('broken', name, ' '.join(str(error).split())[-500:]))
