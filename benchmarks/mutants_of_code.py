r"""Single faults planted in the package, one at a time, and whether the tests notice.

  python benchmarks/mutants_of_code.py                                # all of them, one after another
  python benchmarks/mutants_of_code.py --list
  python benchmarks/mutants_of_code.py --only='holm is bonferroni'    # comma between several

A mutation replaces one text of a file by another, as a slip of a programmer would: a sign, an axis, a mask, a split, a
seed. Only the tests that are named for it run, in a copy of the repository; the checkout is not touched. First the same
tests run without any mutation and have to pass. Prints a table and a count; exit code 1 if a mutation survives its
tests or they give no answer. A survivor is a test that is missing, or a change that changes nothing: write the one,
replace the other. The list is in `tests/faults/code`. All take about half an hour of one core.

This spoils the code. `benchmarks/mutants_of_inputs.py` spoils the files that the code reads.
"""

import argparse
import collections
import dataclasses
import json
import sys
import tempfile
from pathlib import Path

_ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(_ROOT / 'tests'))

from faults import code  # noqa: E402
from faults.code.running import Copies, judged  # noqa: E402


def main() -> int:
  """The exit code."""
  parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
  parser.add_argument('--list', action='store_true', help='print the mutations and run nothing')
  parser.add_argument('--only', help='names of mutations; comma between')
  parser.add_argument('--jobs', type=int, default=1, help='how many at a time')
  parser.add_argument('--limit', type=float, default=300.0, help='seconds for the tests of one mutation')
  flags = parser.parse_args()
  chosen = code.ALL
  if flags.only:
    names = flags.only.split(',')
    unknown = set(names) - {m.name for m in code.ALL}
    if unknown:
      parser.error(f'no mutation is called {", ".join(sorted(unknown))}; --list prints their names')
    chosen = [m for m in code.ALL if m.name in names]
  if flags.list:
    for m in chosen:
      print(f'{m.name}\n    {m.file}: {m.old!r} -> {m.new!r}\n    {" ".join(m.tests)}')
    return 0
  for m in chosen:
    try:
      m.mutated((_ROOT / m.file).read_text(encoding='utf-8'))
    except ValueError as error:
      print(error, file=sys.stderr)
      return 2
  # What was compiled stays for the next time.
  home = Path(tempfile.gettempdir()) / 'mutants-of-code'
  home.mkdir(exist_ok=True)
  place = Path(tempfile.mkdtemp(dir=home))
  tests = list(dict.fromkeys(test for m in chosen for test in m.tests))
  wide = max(len(m.name) for m in chosen)
  verdicts = []
  with Copies(_ROOT, place, flags.jobs, compiled=home / 'compiled') as copies:
    calm = copies.check(tests, flags.limit * len(tests))
    if calm.outcome != 'survived':
      print(f'without any mutation the tests do not pass: {calm.outcome}, {calm.by}', file=sys.stderr)
      return 1
    print(f'without any mutation the tests pass ({calm.seconds:.0f} s)', flush=True)
    for v in judged(copies, chosen, jobs=flags.jobs, limit=flags.limit):
      verdicts.append(v)
      said = v.by if v.outcome == 'caught' else f'{v.outcome.upper()} {v.by}'
      print(f'{v.name:{wide}}  {v.file.removeprefix("dream_jax/"):32}  {said}  ({v.seconds:.0f} s)', flush=True)
  results = place / 'RESULTS.json'
  results.write_text(json.dumps([dataclasses.asdict(v) for v in verdicts], indent=1))
  counts = collections.Counter(v.outcome for v in verdicts)
  others = ''.join(f', {number} {outcome}' for outcome, number in counts.items() if outcome != 'caught')
  print(f'{counts["caught"]} of {len(verdicts)} caught{others}; results: {results}')
  return int(counts['caught'] < len(verdicts))


if __name__ == '__main__':
  sys.exit(main())
