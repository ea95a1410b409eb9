r"""Thousands of spoiled inputs of every format, and what the readers make of them.

  python benchmarks/mutants_of_inputs.py --count=10000 --seed=0
  python benchmarks/mutants_of_inputs.py --formats='mmsa 4' --seed=0 --first=412 --count=1   # what a failure says

A mutant must be read as what it was, or be refused in one line; see `tests/faults/mutants.py` for what counts as a
failure. Prints progress, a table and the failures by kind; exit code 1 if there are any. Ten thousand take about twenty
minutes of two cores.
"""

import argparse
import json
import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / 'tests'))

from faults import formats, mutants, soaking
from faults.tally import Tally


def main() -> int:
  """The exit code."""
  parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
  parser.add_argument('--count', type=int, default=1000, help='how many mutants')
  parser.add_argument('--seed', type=int, default=0)
  parser.add_argument('--formats', help=f'some of {", ".join(formats.FORMATS)}; comma between')
  parser.add_argument('--first', type=int, default=0, help='number of the first of each format')
  parser.add_argument('--workers', type=int, default=2)
  flags = parser.parse_args()
  names = tuple(flags.formats.split(',')) if flags.formats else tuple(formats.FORMATS)
  root = Path(tempfile.mkdtemp(prefix='mutants-'))
  tally = Tally(f'{flags.count} mutants, seed {flags.seed}')
  with soaking.progress(tally, 'outcomes', flags.count):
    mutants.run(tally, root, count=flags.count, seed=flags.seed, names=names, first=flags.first, workers=flags.workers)
  print(tally.table(with_failures=False))
  for kind, failures in sorted(mutants.kinds(tally).items(), key=lambda item: -len(item[1])):
    print(f'{len(failures):5} {kind}\n        {failures[0]}')
  (root / 'RESULTS.json').write_text(json.dumps(tally.as_json(), indent=1))
  print(f'results: {root}/RESULTS.json')
  return int(bool(tally.failures))


if __name__ == '__main__':
  sys.exit(main())
