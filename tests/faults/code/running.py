"""Applies mutations to copies of the repository, one at a time, and runs in each the tests that must notice."""

import dataclasses
import json
import os
import queue
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from concurrent import futures
from pathlib import Path

from faults.code.mutation import Mutation, forget_compiled

_RED = re.compile(r'^(?:FAILED|ERROR) (\S+)', re.MULTILINE)
# In this process, to the first failure, with a line for it; no files of its own.
_PYTEST = ('-x', '-q', '-n', '0', '-rfE', '-p', 'no:cacheprovider', '--tb=line')


@dataclasses.dataclass(frozen=True)
class Verdict:
  """What the tests of a mutation said.

  Attributes:
    name: of the mutation.
    file: where the fault is.
    outcome: 'caught', 'survived', 'no answer' (nothing was tested: the tests could not be run), or 'too slow'.
    by: the test that turned red, or the last lines of pytest where there is no answer.
    seconds: how long it took.
  """

  name: str
  file: str
  outcome: str
  by: str
  seconds: float


class _Copy:
  """A copy of the repository to spoil, and a process that runs tests in it."""

  def __init__(self, root: Path, folder: Path, files: Sequence[str], compiled: Path):
    for name in files:
      (folder / name).parent.mkdir(parents=True, exist_ok=True)
      shutil.copy2(root / name, folder / name)
    self.folder = folder
    shared = os.environ.get('DREAM_SHARED_DATA') or str(root.parent / 'shared' / 'data')
    cache = {'JAX_COMPILATION_CACHE_DIR': str(compiled), 'JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS': '0.1'}
    environment = {**os.environ, **cache, 'PYTHONPATH': f'{folder}:{folder}/tests', 'DREAM_SHARED_DATA': shared}
    self._server = subprocess.Popen(
      [sys.executable, '-m', 'faults.code.forks'],
      cwd=folder,
      env=environment,
      stdin=subprocess.PIPE,
      stdout=subprocess.PIPE,
      stderr=subprocess.DEVNULL,
      text=True,
      bufsize=1,
    )

  def verdict(self, mutation: Mutation, limit: float) -> Verdict:
    """What the tests of the mutation say of the copy as it is."""
    start, output = time.monotonic(), self.folder.with_suffix('.txt')
    assert self._server.stdin is not None
    assert self._server.stdout is not None
    arguments = [*_PYTEST, *(f'tests/{test}' for test in mutation.tests)]
    print(json.dumps([limit, str(output), *arguments]), file=self._server.stdin)
    code = int(self._server.stdout.readline() or 3)
    said = output.read_text(errors='replace') if output.exists() else ''
    red = _RED.search(said)
    if code == 0:
      outcome, by = 'survived', ''
    elif code == 1 and red:
      outcome, by = 'caught', red[1].removeprefix('tests/')
    elif code == -1:
      outcome, by = 'too slow', f'over {limit:g} s'
    else:
      outcome, by = 'no answer', ' '.join(said.split())[-300:]
    return Verdict(mutation.name, mutation.file, outcome, by, time.monotonic() - start)

  def close(self) -> None:
    """Ends the process and removes the copy."""
    assert self._server.stdin is not None
    self._server.stdin.close()
    self._server.wait()
    shutil.rmtree(self.folder)


class Copies:
  """Copies of the repository to spoil; a context manager."""

  def __init__(self, root: Path, place: Path, number: int, *, compiled: Path):
    """Copies what Git tracks and what it would.

    Args:
      root: the repository; it is only read.
      place: an empty folder.
      number: how many copies.
      compiled: folder for what JAX compiles: most programs of most mutations are the same.
    """
    listed = subprocess.run(
      ['git', 'ls-files', '-z', '--cached', '--others', '--exclude-standard'], cwd=root, capture_output=True, check=True
    )
    files = [name for name in listed.stdout.decode().split('\0') if name and (root / name).is_file()]
    self._root = root
    self._all = [_Copy(root, place / f'copy{i}', files, compiled) for i in range(number)]
    self._free: queue.Queue[_Copy] = queue.Queue()
    for copy in self._all:
      self._free.put(copy)

  def __enter__(self) -> 'Copies':
    return self

  def __exit__(self, *_: object) -> None:
    for copy in self._all:
      copy.close()

  def check(self, tests: Sequence[str], limit: float) -> Verdict:
    """What these tests say of the code as it is: it has to be 'survived'."""
    return self._all[0].verdict(Mutation('no mutation', '', '', '', tuple(tests)), limit)

  def judge(self, mutation: Mutation, limit: float) -> Verdict:
    """What the tests say of the mutation; `limit` is in seconds."""
    copy = self._free.get()
    place = copy.folder / mutation.file
    try:
      mutation.apply(copy.folder)
      return copy.verdict(mutation, limit)
    finally:
      shutil.copy2(self._root / mutation.file, place)
      forget_compiled(place)
      self._free.put(copy)


def judged(copies: Copies, mutations: Sequence[Mutation], *, jobs: int, limit: float) -> Iterator[Verdict]:
  """Verdicts in the order of the mutations, as they come."""
  with futures.ThreadPoolExecutor(jobs) as pool:
    yield from pool.map(lambda mutation: copies.judge(mutation, limit), mutations)
