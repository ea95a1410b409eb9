r"""Hours of what the program has to survive: kills, damaged files, wrong settings, a machine that is full or lies.

  python benchmarks/soak.py --kills=1000 --seed=1              # SIGKILL, SIGTERM and SIGINT, then the same command
  python benchmarks/soak.py --kills=100 --processes=2          # the same, of programs of two processes
  python benchmarks/soak.py --kills=50 --phase=study
  python benchmarks/soak.py --kills=6 --seed=1 --story=17      # what a failure says repeats it

Prints progress, every failure as it comes, a table, and writes all of it to RESULTS.json in the folder. What failed
stays there; the rest is removed. Exit code 1 if anything failed. A thousand kills take about half an hour of two cores.
"""

import argparse
import sys
import tempfile
import threading
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / 'tests'))

from faults import kills, tally

_REPORT_SECONDS = 30


def main() -> int:
  """The exit code."""
  parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
  parser.add_argument('--kills', type=int, default=0, help='how many blows')
  parser.add_argument('--seed', type=int, default=0)
  parser.add_argument('--processes', type=int, default=1, choices=(1, 2))
  parser.add_argument('--phase', choices=tuple(kills.SCENARIOS), help='only this command')
  parser.add_argument('--story', type=int, help='only this story')
  parser.add_argument('--workers', type=int, default=2, help='trials at a time')
  parser.add_argument('--folder', type=Path, help='where all of it lies (default: a temporary folder)')
  flags = parser.parse_args()
  root = flags.folder or Path(tempfile.mkdtemp(prefix='soak-'))
  root.mkdir(parents=True, exist_ok=True)
  print(f'seed {flags.seed}, in {root}', flush=True)
  tallies = []
  if flags.kills:
    told = tally.Tally(f'{flags.kills} kills, {flags.processes} processes', aloud=True)
    tallies.append(told)
    with _aloud(told, 'signals', flags.kills):
      draws = kills.Draws(flags.seed, flags.processes, flags.phase)
      kills.run(kills.Bench(root), told, draws, kills=flags.kills, story=flags.story, workers=flags.workers)
  for told in tallies:
    print(told.table())
  tally.write(root / 'RESULTS.json', tallies, flags={k: str(v) for k, v in vars(flags).items()})
  print(f'results: {root}/RESULTS.json')
  return int(any(told.failures for told in tallies))


class _aloud:  # noqa: N801  # A context manager.
  """A line of progress now and then."""

  def __init__(self, told: tally.Tally, column: str, wanted: int):
    self._told, self._column, self._wanted = told, column, wanted
    self._timer: threading.Timer | None = None

  def _line(self) -> None:
    done = sum(self._told.counts[self._column].values())
    print(
      f'{done}/{self._wanted} {self._column}, {len(self._told.failures)} failures, {self._told.hours * 60:.1f} min',
      flush=True,
    )
    self._again()

  def _again(self) -> None:
    self._timer = threading.Timer(_REPORT_SECONDS, self._line)
    self._timer.daemon = True
    self._timer.start()

  def __enter__(self) -> None:
    self._again()

  def __exit__(self, *_: object) -> None:
    if self._timer:
      self._timer.cancel()


if __name__ == '__main__':
  sys.exit(main())
