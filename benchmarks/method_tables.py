r"""The tables of docs/method.md, in Markdown, from the results of a study.

  python benchmarks/method_tables.py runs/ablation [--protocols=complete,modality/noise,...]

prints, for every training regime, the reference method minus each other: points of the primary metric, mean over the
conditions of a protocol, with the 95 % interval over seeds and test samples. Bold: the interval excludes zero. Dagger:
p < .05 after Holm's correction over all opponents under the protocol. Then, where the study valued modalities, how well
what methods say of their modalities agrees with the exact Shapley values of what they predict.
"""

import argparse
import sys

from dream_jax.errors import UserError
from dream_jax.report.results import read_results

PROTOCOLS = ('complete', 'modality/zeros', 'modality/noise', 'modality/swap', 'subset/zeros', 'subset/swap')
SCORES = {
  'spearman_shapley': 'rank correlation',
  'spearman_shapley_inside': 'inside modalities',
  'auroc_helps': 'AUROC of "helps"',
}


def number(x: float) -> str:
  """Two decimals, without the zero in front."""
  return f'{x:.2f}'.replace('0.', '.', 1) if abs(x) < 1 else f'{x:.2f}'


def cell(entry: dict) -> str:
  """One difference with its interval."""
  low, high = (100 * x for x in entry['ci95'])
  text = f'{number(100 * entry["difference"])} [{number(low)}, {number(high)}]'
  if low <= 0 <= high:
    return text
  return f'**{text}**' + ('†' if entry.get('p_holm', 1.0) < 0.05 else '')


def rows(names: list[str], cells: list[list[str]]) -> list[str]:
  """A Markdown table."""
  return [f'| {" | ".join(line)} |' for line in (names, ['---'] * len(names), *cells)]


def differences(results: dict, regime: str, protocols: list[str]) -> list[str]:
  """The reference minus every method that was trained under a regime."""
  found: dict[str, dict[str, str]] = {}
  for entry in results['comparisons']:
    if entry['regime'] == regime and entry['metric'] == results['primary_metric'] and entry['ci95'] is not None:
      found.setdefault(entry['b'].split('@')[0], {})[entry['protocol']] = cell(entry)
  shown = [p for p in protocols if any(p in of for of in found.values())]
  return rows([regime, *shown], [[name, *(of.get(p, '') for p in shown)] for name, of in found.items()])


def faithfulness(results: dict) -> list[str]:
  """What agrees how well with exact Shapley values, mean over seeds."""
  cells = [
    [key, quantity, *(number(scores[s]['mean']) for s in SCORES)]
    for key, method in results['methods'].items()
    for quantity, scores in ((method.get('valuation') or {}).get('fidelity') or {}).items()
  ]
  return rows(['method', 'quantity', *SCORES.values()], cells) if cells else []


def main(arguments: list[str] | None = None) -> int:
  """Prints the tables of a workdir."""
  parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
  parser.add_argument('workdir')
  parser.add_argument('--protocols', default=','.join(PROTOCOLS))
  options = parser.parse_args(arguments)
  try:
    results = read_results(options.workdir)
  except UserError as error:
    print(f'method_tables: {error}', file=sys.stderr)
    return 2
  for regime in results['regimes']:
    print('\n'.join(differences(results, regime, options.protocols.split(','))), end='\n\n')
  print('\n'.join(faithfulness(results)))
  return 0


if __name__ == '__main__':
  sys.exit(main())
