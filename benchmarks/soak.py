r"""Hours of what the program has to survive: kills, damaged files, wrong settings, a machine that is full or lies.

  python benchmarks/soak.py --kills=1000 --seed=1              # SIGKILL, SIGTERM, SIGINT; then the same command
  python benchmarks/soak.py --kills=100 --processes=2          # only programs of two processes
  python benchmarks/soak.py --kills=50 --phase=study
  python benchmarks/soak.py --kills=6 --seed=1 --story=17      # what a failure says repeats it
  python benchmarks/soak.py --kills=500 --seed=1 --first=150   # goes on where an earlier one was stopped
  python benchmarks/soak.py --damage=500                       # files spoiled, of some two thousand ways; 0 is none
  python benchmarks/soak.py --pressure --overrides             # full disks and the like; every field of the config

Prints progress, every failure as it comes, a table, and writes all of it to RESULTS.json in the folder. What failed
stays there; the rest is removed. Exit code 1 if anything failed. Ctrl-C ends the kills after the stories that are being
told. A thousand kills take about an hour and a quarter of two cores.
"""

import argparse
import contextlib
import random
import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / 'tests'))

from faults import damage, kills, overrides, pressure, server, soaking, tally


def main() -> int:
  """The exit code."""
  parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
  parser.add_argument('--kills', type=int, default=0, help='how many blows')
  parser.add_argument('--seed', type=int, default=0)
  parser.add_argument('--processes', type=int, choices=(1, 2), help='of every command; both by default')
  parser.add_argument('--phase', choices=tuple(kills.SCENARIOS), help='only this command')
  parser.add_argument('--damage', type=int, default=0, help='how many spoiled files')
  parser.add_argument('--pressure', action='store_true')
  parser.add_argument('--overrides', action='store_true')
  parser.add_argument('--story', type=int, help='only this story')
  parser.add_argument('--first', type=int, default=0, help='the story to begin with')
  parser.add_argument('--workers', type=int, default=2, help='trials at a time')
  parser.add_argument('--folder', type=Path, help='where all of it lies (default: a temporary folder)')
  flags = parser.parse_args()
  root = flags.folder or Path(tempfile.mkdtemp(prefix='soak-'))
  root.mkdir(parents=True, exist_ok=True)
  print(f'seed {flags.seed}, in {root}', flush=True)
  tallies = []

  def start(title: str) -> tally.Tally:
    tallies.append(tally.Tally(title, aloud=True))
    return tallies[-1]

  bench = kills.Bench(root)
  if flags.kills:
    told, draws = start(f'{flags.kills} kills'), kills.Draws(flags.seed, flags.processes, flags.phase)
    with soaking.progress(told, 'signals', flags.kills), contextlib.suppress(KeyboardInterrupt):
      kills.run(bench, told, draws, kills=flags.kills, story=flags.story, first=flags.first, workers=flags.workers)
  if flags.damage:
    spoiled = damage.Bench(root / 'damage')
    cases = spoiled.cases()
    random.Random(flags.seed).shuffle(cases)
    told = start(f'{flags.damage} of {len(cases)} ways to spoil a file')
    with soaking.progress(told, 'outcomes', flags.damage):
      damage.run(spoiled, told, cases[: flags.damage], seed=flags.seed, workers=flags.workers)
  if flags.pressure:
    pressure.run(bench, start('pressure'))
  if flags.overrides:
    overrides.run(start('overrides'), server.ROOT)
  for told in tallies:
    print(told.table())
  tally.write(root / 'RESULTS.json', tallies, flags={k: str(v) for k, v in vars(flags).items()})
  print(f'results: {root}/RESULTS.json')
  return int(any(told.failures for told in tallies))


if __name__ == '__main__':
  sys.exit(main())
