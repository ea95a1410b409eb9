"""The tables that only a study has: standings, worth of modalities, cost, and what test-set selection would show."""

import numpy as np
from scipy import stats

from dream_jax.report import results as read
from dream_jax.report import tables
from dream_jax.report.table import Table

_VALUATION = (
  'Shapley values of the game v(S) = probability given to the true target when only the modalities in S are there (raw '
  'zeros for the others), exact, on the test split; they need labels and judge, no method sees them.'
)


def standings_table(results: dict) -> Table | None:
  """Mean rank of every contender over protocols, by regime and in all, and how the reference fares against each.

  None for results that are of no study.
  """
  regimes = read.regimes(results)
  if not regimes:
    return None
  found = {regime: _mean_ranks(read.of_regime(results, regime)) for regime in regimes}
  names = list(dict.fromkeys(name for ranks in found.values() for name in ranks))
  if not names:
    return None
  ranks = np.array([[found[regime].get(name, np.nan) for regime in regimes] for name in names])
  ranks = np.concatenate([ranks, ranks.mean(1, keepdims=True)], axis=1)
  order = np.argsort(ranks[:, -1], kind='stable')
  names, ranks = [names[i] for i in order], ranks[order]
  rows = [
    (_title(results, name), *(f'{r:.1f}' if np.isfinite(r) else '–' for r in row), _tally(results, name))
    for name, row in zip(names, ranks, strict=True)
  ]
  best = {(int(r), int(c) + 1) for r, c in np.argwhere(ranks == np.nanmin(ranks, axis=0, initial=np.inf))}
  reference = _title(results, str(results.get('reference', '')))
  return Table(
    title='Standings: mean rank over protocols, by what is missing from the training data (1 is best)',
    columns=('', *regimes, 'all', f'{reference} wins/ties/losses'),
    rows=tuple(rows),
    note=f'Ranks of means; oracles and the constant predictor are not ranked. Last column: of {reference} against the '
    'row, over all regimes and protocols; win or loss: p < 0.05 after Holm correction over the opponents under a '
    'protocol, tie: not told apart.',
    best=frozenset(best),
  )


def selection_table(results: dict) -> Table | None:
  """Means over protocols and regimes as selected on validation, and as the test split would have; None without.

  A measure of what a habit of the field is worth. What the test split selected is no result of any method.
  """
  metric, higher = read.primary(results)
  style, sign = read.measure(metric), 1 if higher else -1
  honest: dict[str, list[float]] = {}
  flattered: dict[str, list[float]] = {}
  for key, entry in results['methods'].items():
    peeked = (entry.get('test_selected') or {}).get('protocols') or {}
    name = read.row_name(results, key)
    for protocol, record in peeked.items():
      own, other = read.summary(results, key, protocol, metric), (record.get('summary') or {}).get(metric) or {}
      if own and own.get('mean') is not None and other.get('mean') is not None:
        honest.setdefault(name, []).append(own['mean'])
        flattered.setdefault(name, []).append(other['mean'])
  if not honest:
    return None
  means = {name: (float(np.mean(honest[name])), float(np.mean(flattered[name]))) for name in honest}
  contenders = [name for name in means if not _oracle(results, name)]
  places = [
    dict(zip(contenders, stats.rankdata([-sign * means[name][i] for name in contenders]), strict=True)) for i in (0, 1)
  ]
  rows, muted = [], set()
  for name in sorted(means, key=lambda n: -sign * means[n][0]):
    own, other = means[name]
    if name not in contenders:
      muted.add(len(rows))
    rows.append(
      (
        _title(results, name),
        style.number(own),
        style.number(other),
        style.signed(sign * (other - own)),
        *(f'{place[name]:.3g}' if name in place else '–' for place in places),
      )
    )
  moved = sum(places[0][name] != places[1][name] for name in contenders)
  return Table(
    title=f'NOT A RESULT. What this field’s habit would have shown you: {style.label}, selected on the test split',
    columns=('', 'selected on validation', 'selected on test', 'gain', 'place', 'place, test'),
    rows=tuple(rows),
    note='The same trainings; only the checkpoint differs: the best on the test split, under the missingness of '
    f'training, in the place of the best on validation. Mean over protocols and regimes. {moved} of {len(contenders)} '
    'places change. All other tables use validation.',
    muted=frozenset(muted),
  )


def balance_table(results: dict) -> Table | None:
  """What each modality is worth to each method: shares of the Shapley value, their balance, leave-one-out values."""
  names = list(results.get('modalities') or ())
  rows, muted = [], set()
  for key, entry in results['methods'].items():
    value, gradient = entry.get('valuation') or {}, entry.get('gradient_imbalance')
    if not value:  # Single modalities, constant predictors: nothing to share out.
      continue
    if read.uses_oracle(results, key):
      muted.add(len(rows))
    rows.append(
      (
        read.title(results, key),
        *(_share(v) for v in value.get('shapley_share') or [None] * len(names)),
        tables.estimate(value.get('balance'), read.Measure('', 1.0, 2)),
        *(_points(v) for v in value.get('leave_one_out') or [None] * len(names)),
        read.Measure('', 1.0, 2).number(read.mean(np.array(gradient or [None], np.float64))),
      )
    )
  if not rows:
    return None
  return Table(
    title=f'Balance: what each modality is worth to each method, complete test samples{_trained_on(results)}',
    columns=(
      '',
      *(f'{n}, share' for n in names),
      'balance',
      *(f'without {n}' for n in names),
      'gradient imbalance',
    ),
    rows=tuple(rows),
    note=f'{_VALUATION} share: of the sum over samples; a negative one lowers that probability on average. Balance: '
    'entropy of the shares over its maximum, 1 is equal. Without: leave-one-out value, in points of probability that '
    'are lost without the modality. Gradient imbalance: largest over mean gradient norm of the encoders, mean over '
    f'training; 1 is equal, {len(names)} is one modality alone.',
    muted=frozenset(muted),
  )


def fidelity_table(results: dict) -> Table | None:
  """How well each method's estimates agree with the exact values on the test split; None without any."""
  columns = {
    'spearman_shapley': 'Spearman, Shapley',
    'spearman_shapley_inside': 'the same, inside modalities',
    'spearman_leave_one_out': 'Spearman, leave-one-out',
    'auroc_helps': 'AUROC of “it helps”',
  }
  style, rows = read.Measure('', 1.0, 3), []
  for key, entry in results['methods'].items():
    for name, found in ((entry.get('valuation') or {}).get('fidelity') or {}).items():
      rows.append((f'{read.title(results, key)}: {name}', *(tables.estimate(found.get(c), style) for c in columns)))
  if not rows:
    return None
  return Table(
    title='Fidelity: estimates of contribution against the exact values of the same model, complete test samples'
    + _trained_on(results),
    columns=('method: estimate', *columns.values()),
    rows=tuple(rows),
    note=f'{_VALUATION} It helps: its Shapley value is positive. ± is the half width of the 95 % interval over seeds.',
  )


def cost_table(results: dict) -> Table | None:
  """Parameters, floating-point operations and seconds of every trained method; None for results of no study."""
  if not read.regimes(results):
    return None
  total: dict[str, dict[str, float]] = {}
  first: dict[str, dict] = {}
  for entry in results['methods'].values():
    method = entry['method']
    # By regime: several rows may be of one run.
    total.setdefault(method, {})[entry['regime']] = entry.get('wall_seconds') or 0.0
    first.setdefault(method, entry)
  searches = results.get('search') or {}
  rows = []
  for method, entry in first.items():
    regimes, search = list(total[method].values()), searches.get(method) or {}
    flops = entry.get('train_flops')
    rows.append(
      (
        _name(method, entry),
        f'{entry.get("num_params") or 0:,}',
        '–' if flops is None else f'{flops / 1e9:,.0f}',
        _seconds(entry.get('train_seconds')),
        _seconds(entry.get('evaluate_seconds')),
        _seconds((search.get('compile_seconds') or 0.0) + sum(_compiling(results, method))),
        _seconds(search.get('wall_seconds')) if searches else '–',
        _seconds(sum(regimes) + (search.get('wall_seconds') or 0.0)),
      )
    )
  seeds = tables.seeds_text(results)
  return Table(
    title=f'Cost of every method, {seeds} seeds side by side',
    columns=('', 'parameters', 'GFLOP', 'training, s', 'testing, s', 'compiling, s', 'search, s', 'all, s'),
    rows=tuple(rows),
    note='Parameters and GFLOP of training: of one seed. Training and testing: all seeds under the first regime; '
    'compiling, search and all: the whole study. A method that shares another one’s program compiles nothing. Seconds '
    f'were measured on {(results.get("environment") or {}).get("devices", "unknown devices")}.',
  )


def settings_table(results: dict) -> Table | None:
  """Settings that the search chose for each method, the config's own first; None where nothing was searched."""
  searches = results.get('search') or {}
  if not searches:
    return None
  fields = list(next(iter(searches.values()))['chosen'])
  rows = []
  for method, search in searches.items():
    own, best = search['scores'][0], max((s for s in search['scores'] if s is not None), default=None)
    gain = '–' if own is None or best is None else f'{best - own:+.4f}'
    place = search['points'].index(search['chosen'])
    rows.append(
      (method, *(f'{search["chosen"][f]:.3g}' for f in fields), f'{place + 1} of {len(search["points"])}', gain)
    )
  return Table(
    title='Settings that a random search chose on validation',
    columns=('', *fields, 'point', 'gain on validation'),
    rows=tuple(rows),
    note='Point 1 is what the config says. The gain is that of the best of several noisy scores, so it is optimistic.',
  )


def _trained_on(results):
  """What the title of a table of one regime says of it."""
  regimes = {e['regime'] for e in results['methods'].values() if e.get('regime')}
  return f'; training data: {regimes.pop()}' if len(regimes) == 1 else ''


def _compiling(results, method):
  seen = {e['regime']: e.get('compile_seconds') or 0.0 for e in results['methods'].values() if e['method'] == method}
  return seen.values()


def _mean_ranks(results):
  """{row name: mean rank over protocols} of the contenders of one regime."""
  metric, _ = read.primary(results)
  names = [m for m in results['methods'] if not _constant(results, m) and not read.uses_oracle(results, m)]
  sign, ranks = -1 if tables.higher(results, metric) else 1, []
  for protocol in read.protocols(results):
    found = [read.summary(results, m, protocol, metric) for m in names]
    if all(s and s.get('mean') is not None for s in found):
      ranks.append(stats.rankdata([sign * s['mean'] for s in found if s]))
  means = np.mean(ranks, axis=0) if ranks else np.full(len(names), np.nan)
  return {read.row_name(results, m): float(r) for m, r in zip(names, means, strict=True)}


def _tally(results, name):
  """'wins/ties/losses' of the reference against a row over all regimes and protocols; a dash for itself."""
  entries = [c for c in results.get('comparisons') or () if read.row_name(results, c['b']) == name]
  verdicts = [tables.verdict(results, c) for c in entries]
  return '/'.join(str(verdicts.count(v)) for v in ('win', 'tie', 'loss')) if verdicts else '–'


def _title(results, name):
  return read.title(results, name) if name in results['methods'] else name


def _oracle(results, name):
  return any(read.uses_oracle(results, key) for key in results['methods'] if read.row_name(results, key) == name)


def _constant(results, key):
  return results['methods'][key].get('method') in read.CONSTANT_METHODS


def _share(value):
  return '–' if value is None else f'{100 * value:.0f} %'


def _points(value):
  return '–' if value is None else f'{100 * value:+.1f}'


def _name(method: str, entry: dict) -> str:
  """What a run is called whose rows may be several."""
  title = str(entry.get('title') or method)
  return title if entry.get('modality') is None else f'Single modality{"".join(title.partition(":")[1:])}'


def _seconds(value):
  return '–' if value is None else f'{value:.1f}'
