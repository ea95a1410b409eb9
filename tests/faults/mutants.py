"""Mutants: inputs of every format, spoiled, and read: the values that were there, or one line that says what is wrong.

Counted as failures: another exception, more than ten seconds, more than two gigabytes, code of the file that ran, a
crash, and values that are not those of the file where its checksums could have told. A mutant is a function of seed,
format and number. Readers are called below the writing of prepared data; what fails there, and a sample of the rest, is
tried through `load_dataset`.
"""

import collections
import concurrent.futures
import dataclasses
import json
import random
import resource
import shutil
import signal
import sys
import tempfile
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

from faults import formats, mutations, server
from faults.formats import FORMATS, Format
from faults.tally import Failure, Tally

_SECONDS = 10
_BYTES = 2 << 30
_WHOLE = 0.02  # Share that is tried through everything.
_BATCH = 250  # Mutants of one child.
_GOOD = ('the same', 'refused', 'accepted', 'other values, which no checksum covers')


class _Hang(BaseException):  # No reader may catch it.
  pass


@dataclasses.dataclass(frozen=True)
class Outcome:
  """What became of one mutant."""

  number: int
  how: str
  what: str
  said: str = ''


def work(name: str, seed: int, first: int, count: int, folder: str, results: str) -> None:
  """Tries mutants of a format; a line of `results` each, so that the one that kills this process is known."""
  of, root = FORMATS[name], Path(folder)
  formats.small_shapes()
  path = of.write(root / 'source')
  pristine = path.read_bytes()
  expected = {reader: reader(of, root / 'source', root / 'scratch') for reader in (formats.examples, formats.whole)}
  address_space = int(Path('/proc/self/statm').read_text().split()[0]) * resource.getpagesize() + _BYTES
  resource.setrlimit(resource.RLIMIT_AS, (address_space, address_space))
  signal.signal(signal.SIGALRM, _too_long)
  with open(results, 'a') as out:
    for number in range(first, first + count):
      rng = random.Random(f'{seed}/{name}/{number}')
      canary = root / 'canary'
      by_content = rng.random() < 0.4
      if by_content:
        how = mutations.content_of(of, path, rng, str(canary))
      else:
        how, content = mutations.bytes_of(pristine, rng)
        path.write_bytes(content)
      readers = [formats.whole] if rng.random() < _WHOLE else [formats.examples, formats.whole]
      for reader in readers:
        what, said = _judge(reader, of, root, expected[reader], by_content)
        if canary.exists():
          what, said = 'code ran', said or what
          canary.rmdir()
        if what in _GOOD or what == 'hang':
          break
      out.write(json.dumps([number, how, what, said]) + '\n')
      out.flush()
      path.write_bytes(pristine)


def _judge(
  reader: Callable[..., dict[str, Any]], of: Format, root: Path, expected: dict[str, Any], by_content: bool
) -> tuple[str, str]:
  """(what became of it, more words)."""
  from dream_jax.errors import UserError

  signal.setitimer(signal.ITIMER_REAL, _SECONDS)
  try:
    found = reader(of, root / 'source', root / 'scratch')
  except UserError as error:
    # Commands put it on one line; nobody reads a page of it.
    return ('refused', '') if len(str(error)) < 1000 else ('refused at length', str(error)[:300])
  except _Hang:
    return 'hang', _last_frames()
  except MemoryError:
    return 'memory', _last_frames()
  except Exception as error:
    return f'traceback {type(error).__name__}', f'{error} | {_last_frames()}'
  finally:
    signal.setitimer(signal.ITIMER_REAL, 0)
  if found == expected:
    return 'the same', ''
  if by_content or of.free:
    return 'accepted', ''
  same_samples = _shape(found) == _shape(expected)
  if same_samples and not of.sealed:
    return 'other values, which no checksum covers', ''
  return 'silently other values', f'{_shape(found)} instead of {_shape(expected)}'


def _shape(found: dict[str, Any]) -> dict[str, Any]:
  """What samples there are, not what they hold."""
  return {name: len(part) if isinstance(part, dict) else part for name, part in found.items()}


def _too_long(*_: Any) -> None:
  raise _Hang


def _last_frames() -> str:
  """Where it was, in the program."""
  frames = traceback.extract_tb(sys.exc_info()[2])
  own = [f for f in frames if 'dream_jax' in f.filename] or frames
  return ' < '.join(f'{Path(f.filename).name}:{f.lineno}' for f in reversed(own[-3:]))


def run(
  tally: Tally,
  root: Path,
  *,
  count: int,
  seed: int,
  names: tuple[str, ...] = tuple(FORMATS),
  first: int = 0,
  workers: int = 2,
) -> None:
  """Tries so many mutants, as many of each format.

  Args:
    tally: where they are counted.
    root: a folder for all of it.
    count: of mutants.
    seed: of all that is drawn.
    names: of formats.
    first: number of the first of each format; a failure names its own.
    workers: processes at a time.
  """
  each = -(-count // len(names))
  batches = [(n, b, min(_BATCH, first + each - b)) for n in names for b in range(first, first + each, _BATCH)]

  def attempt(batch: tuple[str, int, int]) -> None:
    name, start, size = batch
    while size > 0 and not tally.hopeless:
      done = _batch(tally, root, name, seed, start, size)
      start, size = start + done, size - done

  with concurrent.futures.ThreadPoolExecutor(workers) as pool:
    list(pool.map(attempt, batches))


def _batch(tally: Tally, root: Path, name: str, seed: int, first: int, count: int) -> int:
  """Tries mutants in one child; how many were done, the one that killed it included."""
  # In memory where there is such a place: thousands of files are written and read.
  memory = '/dev/shm' if Path('/dev/shm').is_dir() else None
  folder = Path(tempfile.mkdtemp(prefix='mutants-', dir=memory))
  results, said = folder / 'results', root / f'said-{name.replace(" ", "-")}-{first}'
  results.touch()
  child = server.Child(work, name, seed, first, count, str(folder), str(results), output=said)
  seen, changed, code = 0, time.monotonic(), None
  while code is None:
    code = child.wait(0.2)
    size = results.stat().st_size
    if size != seen:
      seen, changed = size, time.monotonic()
    if code is None and time.monotonic() - changed > 12 * _SECONDS:  # A signal does not reach what is not Python.
      child.stop()
      break
  lines = [json.loads(line) for line in results.read_text().splitlines()]
  for outcome in (Outcome(*line) for line in lines):
    _count(tally, name, seed, outcome)
  shutil.rmtree(folder)
  if code == 0:
    said.unlink()
    return count
  if not lines and 'faults/mutants.py' in child.text:
    tally.fail(Failure('cannot be read unspoiled', name, ' '.join(child.text[-600:].split())))
    return count
  dead = Outcome(first + len(lines), 'unknown', 'hang' if code is None else 'crash', child.text[-400:])
  _count(tally, name, seed, dead)
  return len(lines) + 1


def _count(tally: Tally, name: str, seed: int, outcome: Outcome) -> None:
  tally.count('outcomes', f'{name}: {outcome.what}')
  if outcome.what in _GOOD:
    return
  where = f'--formats={name!r} --seed={seed} --first={outcome.number} --count=1: {outcome.how}'
  tally.fail(Failure(outcome.what, where, ' '.join(outcome.said.split())))


def kinds(tally: Tally) -> dict[str, list[Failure]]:
  """Failures by what is alike in them: the format's family, the kind and the place in the program."""
  found: dict[str, list[Failure]] = collections.defaultdict(list)
  for failure in tally.failures:
    place = failure.said.rpartition('| ')[2].partition(' < ')[0]
    found[f'{failure.where.split("=")[1].split(" --")[0]}: {failure.kind} at {place:.60}'].append(failure)
  return found
