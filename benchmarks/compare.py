r"""Paired differences between methods of any workdirs that share data, seeds and protocols.

  python benchmarks/compare.py runs/digits:dream runs/no_agreement:dream runs/digits:late+dropout

prints the first minus each other: points of the primary metric, mean over the conditions of a protocol, with the 95 %
interval over seeds and test samples (two-way bootstrap, not corrected for the number of comparisons).
"""

import sys

from dream_jax.errors import UserError
from dream_jax.evaluation.intervals import paired_comparison
from dream_jax.workdir import method_files, run_folders


def rows(argument: str) -> dict:
  """Scores of samples by protocol, [seeds, n], of WORKDIR:METHOD or WORKDIR:METHOD/ROW."""
  workdir, _, name = argument.rpartition(':')
  method, _, row = name.partition('/')
  folder, key = run_folders.find(workdir, method)
  found = {r.name: r.sample_scores for r in method_files.read_method(folder, method, run=key).rows}
  return found[row or method]


def main(arguments: list[str]) -> int:
  """Prints one line a protocol and pair."""
  if len(arguments) < 2:
    print(__doc__)
    return 2
  try:
    first, *others = (rows(a) for a in arguments)
    for argument, other in zip(arguments[1:], others, strict=True):
      print(f'{arguments[0]} minus {argument}')
      for protocol in first:
        if protocol in other:
          c = paired_comparison(first[protocol], other[protocol])
          low, high = c.ci95 if c.ci95 is not None else (float('nan'), float('nan'))
          print(f'  {protocol:18s} {100 * c.difference:+6.2f}  [{100 * low:+.2f}, {100 * high:+.2f}]')
  except (UserError, KeyError, ValueError) as error:
    print(f'compare: {error}', file=sys.stderr)
    return 2
  return 0


if __name__ == '__main__':
  sys.exit(main(sys.argv[1:]))
