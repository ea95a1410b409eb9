r"""Every claim of README and docs as a row of `docs/claims.md`, held against the results that it is about.

  python benchmarks/claims.py keep NAME WORKDIR   # what results say, without samples, as docs/evidence/NAME.json
  python benchmarks/claims.py                     # writes docs/claims.md
  python benchmarks/claims.py --check             # exit 1 where a claim is not supported, or the page is not this one

`docs/claims.toml` holds the claims. Each names its evidence, methods and protocols, and what has to be so there:

  holds = "better"          a significantly ahead of b under each protocol
  holds = "not worse"       a nowhere significantly behind b
  holds = "equivalent"      the whole interval within the margin of 0, each time
  holds = "worse"           a significantly behind b, each time: what we lose at is a claim, too
  holds = "best rank"       of a suite: a has the best mean rank, and its interval does not meet the second's
"""

import argparse
import json
import sys
import tomllib
from collections import Counter
from pathlib import Path
from typing import Any

from dream_jax.errors import UserError
from dream_jax.evaluation import across
from dream_jax.report import results as read
from dream_jax.workdir import sealed

_ROOT = Path(__file__).resolve().parent.parent
_PAGE, _CLAIMS, _EVIDENCE = (_ROOT / 'docs' / name for name in ('claims.md', 'claims.toml', 'evidence'))
_MARGIN = 0.005
_ENOUGH = {
  'better': {'better'},
  'not worse': {'better', 'equivalent', 'undecided'},
  'equivalent': {'equivalent'},
  'worse': {'worse'},
}
_HEAD = """# Claims

What this project says of its methods, and what supports it. A claim is held against the results of a command by
`python benchmarks/claims.py --check`, which is one of the tests. Differences are of the primary metric in points, DREAM
minus the other, with a 95 % interval ([Concepts](concepts.md#how-to-read-results)). *Better* and *worse* are
significant after Holm correction. *Equivalent* is an interval within {margin:g} points of 0. *Undecided* is neither.

| claim | holds | figures | data | command |
|---|---|---|---|---|
"""


def keep(name: str, workdir: str) -> None:
  """Writes what a workdir's results say as evidence.

  Raises:
    UserError: there are no results, or they are damaged.
  """
  results = read.defined(read.read_results(workdir))
  kept = ('mode', 'dataset', 'data', 'data_kind', 'reference', 'primary_metric', 'higher_is_better', 'environment')
  content = {field: results[field] for field in kept if field in results}
  config = results['config']
  config['data'] = {field: value for field, value in config['data'].items() if not field.endswith('dir')}  # Yours.
  content |= {'wall_seconds': round(results['wall_seconds'], 1), 'config': config}
  if results['mode'] == 'suite':
    content |= {'mean_rank': results['mean_rank'], 'comparisons': results['comparisons'], 'methods': results['methods']}
  else:
    metric, sign = results['primary_metric'], 1 if results['higher_is_better'] else -1
    content['comparisons'] = [
      {
        **{field: c[field] for field in ('a', 'b', 'regime', 'protocol')},
        'difference': sign * c['difference'],
        'ci95': c['ci95'] and sorted(sign * x for x in c['ci95']),
        'p_holm': c.get('p_holm'),
        'verdict': across.verdict(
          sign * c['difference'], c['ci95'] and sorted(sign * x for x in c['ci95']), c.get('p_holm'), _MARGIN
        ),
      }
      for c in results['comparisons']
    ]
    content['methods'] = {
      m: {
        'title': e['title'],
        'seeds': len(e['seeds']),
        'means': {p: found['summary'][metric]['mean'] for p, found in e['protocols'].items()},
      }
      for m, e in results['methods'].items()
    }
  _EVIDENCE.mkdir(exist_ok=True)
  text = json.dumps(sealed.plain(_rounded(content)), indent=1)
  (_EVIDENCE / f'{name}.json').write_text(text + '\n')


def judged(claim: dict[str, Any], evidence: dict[str, Any]) -> tuple[bool, str]:
  """(whether a claim holds, its figures in words).

  Raises:
    UserError: the evidence says nothing about it.
  """
  if claim['holds'] == 'best rank':
    return _best_rank(claim, evidence)
  if claim['holds'] not in _ENOUGH:
    raise UserError(f'{claim["text"]!r}: holds is {claim["holds"]!r}; expected best rank, {", ".join(_ENOUGH)}')
  wanted = [(b, p) for b in claim['b'] for p in claim['protocols']]
  found = [
    c
    for c in evidence['comparisons']
    if (c['b'], c['protocol']) in wanted
    and c['a'] == claim['a']
    and c.get('data') in (None, *claim.get('data', [c.get('data')]))
  ]
  lacking = [pair for pair in wanted if pair not in {(c['b'], c['protocol']) for c in found}]
  if lacking:
    raise UserError(
      f'{claim["text"]!r}: {claim["evidence"]} compares {claim["a"]} with no {lacking[0][0]} under {lacking[0][1]}'
    )
  said = Counter(c['verdict'] for c in found)
  wrong = sum(count for verdict, count in said.items() if verdict not in _ENOUGH[claim['holds']])
  if len(found) > 4:
    figures = ', '.join(f'{said[v]} {v}' for v in across.VERDICTS if said[v])
  else:
    figures = '; '.join(f'{c["b"]}, {c["protocol"]}: {_points(c)}' for c in found)
  return wrong <= claim.get('but', 0), figures


def _best_rank(claim: dict[str, Any], evidence: dict[str, Any]) -> tuple[bool, str]:
  (first, best), (second, next_best), *_ = evidence['mean_rank'].items()
  apart = best['ci95'] is not None and best['ci95'][1] < next_best['ci95'][0]
  figures = ', '.join(
    f'{m} {e["value"]:.1f} [{e["ci95"][0]:.1f}, {e["ci95"][1]:.1f}]' for m, e in ((first, best), (second, next_best))
  )
  return first == claim['a'] and apart, figures


def _points(c: dict[str, Any]) -> str:
  text = f'{100 * c["difference"]:+.1f}'
  return text if c['ci95'] is None else f'{text} [{100 * c["ci95"][0]:+.1f}, {100 * c["ci95"][1]:+.1f}]'


def _rounded(value: Any) -> Any:
  if isinstance(value, dict):
    return {key: _rounded(inside) for key, inside in value.items()}
  if isinstance(value, (list, tuple)):
    return [_rounded(inside) for inside in value]
  return float(f'{value:.5g}') if isinstance(value, float) else value


def page() -> tuple[str, list[str]]:
  """(the page, claims that do not hold).

  Raises:
    UserError: a claim lacks a field or its evidence.
  """
  lines, wrong = [], []
  for claim in tomllib.loads(_CLAIMS.read_text())['claim']:
    path = _EVIDENCE / f'{claim["evidence"]}.json'
    if not path.exists():
      raise UserError(
        f'{claim["text"]!r}: {path} is not there; make it with: python {sys.argv[0]} keep {claim["evidence"]} WORKDIR'
      )
    evidence = json.loads(path.read_text())
    holds, figures = judged(claim, evidence)
    if not holds:
      wrong.append(f'{claim["text"]} ({claim["holds"]}): {figures}')
    seconds = evidence['wall_seconds']
    cost = f'{seconds / 60:.0f} min on {evidence["environment"]["devices"]}'
    data = evidence.get('dataset') or f'{len(evidence["data"])} data sets'
    lines.append(f'| {claim["text"]} | {claim["holds"]} | {figures} | {data} | `{claim["command"]}`, {cost} |')
  return _HEAD.format(margin=100 * _MARGIN) + '\n'.join(lines) + '\n', wrong


def main() -> int:
  """The exit code."""
  parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
  parser.add_argument('--check', action='store_true')
  parser.add_argument('keep', nargs='*', metavar='keep NAME WORKDIR')
  options = parser.parse_args()
  try:
    if options.keep:
      if len(options.keep) != 3 or options.keep[0] != 'keep':
        parser.error('expected: keep NAME WORKDIR')
      keep(*options.keep[1:])
      return 0
    text, wrong = page()
  except (UserError, KeyError) as error:
    print(f'claims: {error}', file=sys.stderr)
    return 2
  for claim in wrong:
    print(f'not supported: {claim}')
  if not options.check:
    _PAGE.write_text(text)
  elif not _PAGE.exists() or _PAGE.read_text() != text:
    print(f'{_PAGE} is not what its evidence says; make it anew with: python {sys.argv[0]}')
    return 1
  return 1 if wrong else 0


if __name__ == '__main__':
  sys.exit(main())
