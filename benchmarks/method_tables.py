r"""The figures of the tables in docs/notebook/method.md, in Markdown, from the results of a study.

  python benchmarks/method_tables.py runs/ablation [--protocols=complete,modality/noise,...]

prints, for every training regime, the reference method minus each other: points of accuracy, or what the primary metric
is, mean over the conditions of a protocol, with the 95 % interval over seeds and test samples. Bold: the interval
excludes zero. Dagger: p < .05 after Holm's correction over the opponents of a table under the protocol. Ablations of
the reference and other methods answer two questions and are two tables; `results.json` corrects over both together.
Then, where the study valued modalities, how well what methods say of them agrees with the exact Shapley values of what
they predict.
"""

import argparse
import itertools
import sys

import numpy as np

from dream_jax.errors import UserError, did_you_mean
from dream_jax.evaluation.intervals import holm
from dream_jax.report import results as read

SCORES = {
  'spearman_shapley': 'rank correlation',
  'spearman_shapley_inside': 'inside modalities',
  'auroc_helps': 'AUROC of "helps"',
}


def number(x: float | None) -> str:
  """Two decimals, without the zero in front."""
  if x is None:
    return '–'
  return f'{x:.2f}'.replace('0.', '.', 1) if abs(x) < 1 else f'{x:.2f}'


def cell(entry: dict, p: float | None, factor: float) -> str:
  """One difference with its interval; `p` is corrected."""
  if entry['ci95'] is None:
    return number(entry['difference'] and factor * entry['difference'])
  low, high = (factor * x for x in entry['ci95'])
  text = f'{number(factor * entry["difference"])} [{number(low)}, {number(high)}]'
  if low <= 0 <= high:
    return text
  return f'**{text}**' + ('†' if p is not None and p < 0.05 else '')


def rows(names: list[str], cells: list[list[str]]) -> str:
  """A Markdown table."""
  return '\n'.join(f'| {" | ".join(line)} |' for line in (names, ['---'] * len(names), *cells))


def differences(results: dict, regime: str, protocols: list[str], *, ablations: bool) -> str:
  """The reference minus its ablations, or the other methods, trained under a regime; empty where there are none."""
  metric, _ = read.primary(results)
  own = f'{results["reference"]}['
  family = [
    (read.row_name(results, e['b']), e)
    for e in results['comparisons']
    if e['regime'] == regime and e['metric'] == metric and e['b'].startswith(own) == ablations
  ]
  found: dict[str, dict[str, str]] = {}
  for protocol in protocols:
    entries = [(name, e) for name, e in family if e['protocol'] == protocol]
    tested = [name for name, e in entries if e['p'] is not None and np.isfinite(e['p'])]
    corrected = dict(zip(tested, holm([e['p'] for name, e in entries if name in tested]), strict=True))
    for name, e in entries:
      found.setdefault(name, {})[protocol] = cell(e, corrected.get(name), read.measure(metric).scale)
  lines = [[name, *(of.get(p, '–') for p in protocols)] for name, of in found.items()]
  return rows([f'{read.measure(metric).label}; trained on {regime}', *protocols], lines) if lines else ''


def faithfulness(results: dict) -> str:
  """What agrees how well with exact Shapley values, mean over seeds; empty where nothing was valued."""
  cells = [
    [key, quantity, *(number(scores[s]['mean']) for s in SCORES)]
    for key, method in results['methods'].items()
    for quantity, scores in ((method.get('valuation') or {}).get('fidelity') or {}).items()
  ]
  return rows(['method', 'quantity', *SCORES.values()], cells) if cells else ''


def main(arguments: list[str] | None = None) -> int:
  """Prints the tables of a workdir."""
  parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
  parser.add_argument('workdir')
  parser.add_argument('--protocols', default='', help='columns; all that the study tested unless given')
  options = parser.parse_args(arguments)
  try:
    results = read.read_results(options.workdir)
    if not read.regimes(results):
      raise UserError(f'{options.workdir} holds a single run; expected a study (python -m dream_jax.main --mode=study)')
    known = read.protocols(results)
    chosen = [p for p in options.protocols.split(',') if p] or known
    for protocol in chosen:
      if protocol not in known:
        raise UserError(f'the study did not test {protocol!r}; {did_you_mean(protocol, known)}')
  except UserError as error:
    print(f'method_tables: {error}', file=sys.stderr)
    return 2
  families = itertools.product(read.regimes(results), (True, False))
  tables = [differences(results, regime, chosen, ablations=ablations) for regime, ablations in families]
  print('\n\n'.join(table for table in (*tables, faithfulness(results)) if table))
  return 0


if __name__ == '__main__':
  sys.exit(main())
