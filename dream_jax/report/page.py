"""One HTML page of a study that opens offline: every figure embedded, no script, nothing loaded from anywhere."""

import html
import os
from collections.abc import Sequence

from etils import epath

from dream_jax.report import figures, tables
from dream_jax.report import results as read
from dream_jax.report.sections import make_sections
from dream_jax.workdir import storage

_STYLE = """
:root { color-scheme: light dark; }
body { margin: 0 auto; max-width: 72rem; padding: 2rem 1.25rem 4rem; background: #fff; color: #222;
  font: 1rem/1.55 system-ui, -apple-system, "Segoe UI", Roboto, "Noto Sans", sans-serif; }
h1 { font-size: 1.7rem; line-height: 1.2; margin: 0 0 1rem; }
h2 { font-size: 1.25rem; margin: 3rem 0 .75rem; padding-top: 1rem; border-top: 1px solid #ccc; }
p, ul { max-width: 46rem; }
nav ul { display: flex; flex-wrap: wrap; gap: .25rem 1.25rem; list-style: none; padding: 0; margin: 1.25rem 0 0; }
a { color: #00518a; }
.kind { max-width: none; padding: .75rem 1rem; border-left: .4rem solid; }
.real { background: #e8f2f8; border-color: #0072b2; }
.synthetic, .unknown { background: #fdeee2; border-color: #d55e00; }
dl { display: grid; grid-template-columns: max-content 1fr; gap: .25rem 1.5rem; margin: 1.25rem 0; }
dt { color: #555; } dd { margin: 0; overflow-wrap: anywhere; }
.table { margin: 1.5rem 0; } .scroll { overflow-x: auto; }
table { border-collapse: collapse; font-size: .92rem; font-variant-numeric: tabular-nums; }
caption { text-align: left; font-weight: 600; padding-bottom: .4rem; }
th, td { padding: .35rem .75rem; text-align: right; vertical-align: top; white-space: nowrap;
  border-bottom: 1px solid #e2e2e2; }
thead th { border-bottom: 2px solid #888; vertical-align: bottom; }
th[scope=row] { text-align: left; font-weight: 400; position: sticky; left: 0; background: #fff;
  white-space: normal; min-width: 8rem; max-width: 16rem; }
tr.muted th, tr.muted td { color: #595959; font-style: italic; }
.note, figcaption { font-size: .9rem; color: #555; max-width: 52rem; }
figure { margin: 2rem 0; } img { max-width: 100%; height: auto; }
details { margin: 1rem 0; } summary { cursor: pointer; color: #00518a; }
pre { background: #f5f5f5; padding: 1rem; overflow-x: auto; font-size: .85rem; }
@media (prefers-color-scheme: dark) {
  body, th[scope=row] { background: #16181a; color: #dcdcdc; } a, summary { color: #7cc0f5; }
  h2, th, td { border-color: #3a3d40; } thead th { border-color: #777; }
  dt, .note, figcaption, tr.muted th, tr.muted td { color: #a8a8a8; } pre { background: #222527; }
  .real { background: #0e2735; } .synthetic, .unknown { background: #38240f; } img { background: #fff; }
}
@media print { body { max-width: none; } h2 { break-after: avoid; } figure, tr { break-inside: avoid; } }
"""

_KINDS_OF_FIGURES = ('robustness', 'conditions', 'comparisons', 'contributions', 'imbalance')
_POLICY = "default-src 'none'; img-src data:; style-src 'unsafe-inline'"
_KINDS = {
  'real': 'Real data. The figures below were measured on recorded data.',
  'synthetic': 'Synthetic data. A program generated the samples; the figures below say nothing about real data.',
  'unknown': 'Data kind not recorded. Take the figures below as synthetic until it is known.',
}

_CAVEAT = (
  'Only the abstract of the paper that describes DREAM is public. The formulas behind the method here are a design of '
  'our own that follows the abstract; these results are not the results of the paper and should not be quoted as such.'
)


def write_report(workdir: str | os.PathLike) -> str:
  """Path of `report.html`, written from `results.json` in the same folder, with the figures also in `figures/*.png`.

  Figures of an earlier report that are no longer drawn are removed; files that carry no name of ours stay.

  Raises:
    UserError: `results.json` is missing or is not a results file.
  """
  results = read.read_results(workdir)
  drawings = figures.draw(results)
  workdir = os.fspath(workdir)
  folder = storage.place(workdir)
  _write_figures(folder / 'figures', drawings)
  path = folder / 'report.html'
  storage.write(path, _page(results, drawings, workdir).encode('utf-8'))
  return os.fspath(path)


def _page(results, drawings, workdir):
  results = read.defined(results)
  name = str(results.get('dataset', 'results'))
  return frame(name, make_sections(results, drawings, workdir), f'{_banner(results)}\n{_facts(results)}')


def frame(name: str, sections: Sequence[tuple[str, str, str]], top: str) -> str:
  """A whole page.

  Args:
    name: what the results are of.
    sections: (anchor, heading, HTML) each.
    top: HTML above the contents.
  """
  name = html.escape(name)
  links = ''.join(f'<li><a href="#{key}">{heading}</a></li>' for key, heading, _ in sections)
  body = ''.join(f'<section id="{key}"><h2>{heading}</h2>{content}</section>\n' for key, heading, content in sections)
  # The policy makes the promise binding: a browser would refuse to load anything that is not embedded.
  return (
    '<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8">\n'
    '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
    f'<meta http-equiv="Content-Security-Policy" content="{_POLICY}">\n'
    f'<title>{name}: results</title>\n<style>{_STYLE}</style></head>\n'
    f'<body><main><h1>{name}: results with missing and weak modalities</h1>\n{top}\n'
    f'<p class="note">{_CAVEAT}</p>'
    f'<nav aria-label="Contents"><ul>{links}</ul></nav>\n{body}</main></body></html>\n'
  )


def _banner(results):
  kind = results.get('data_kind')
  kind = kind if kind in _KINDS else 'unknown'
  first, rest = _KINDS[kind].split('. ', 1)
  return f'<p class="kind {kind}"><strong>{first}.</strong> {rest}</p>'


def _facts(results):
  metric, higher = read.primary(results)
  oracles = [read.title(results, m) for m in results['methods'] if read.uses_oracle(results, m)]
  selection = dict.fromkeys(
    str(e['selection']) for e in results['methods'].values() if e.get('selection') not in (None, 'none')
  )
  facts = {
    'Task': _known(results.get('task'), results.get('num_outputs'), ' with {} outputs'),
    'Modalities': ', '.join(results.get('modalities') or ()),
    'Samples': ', '.join(
      f'{results[key]} {word}'
      for key, word in (('num_train', 'for training'), ('num_test', 'for testing'))
      if results.get(key)
    ),
    'Seeds': f'{tables.seeds_text(results)} per method',
    'Primary metric': f'{read.measure(metric).label.replace(", %", "")}, {"higher" if higher else "lower"} is better',
    'Selection': f'checkpoints chosen on {", ".join(selection)}' if selection else '',
    'With an oracle': '; '.join(oracles) + '. Marked in every table, no contender' if oracles else 'no method',
  }
  rows = ''.join(f'<dt>{html.escape(k)}</dt><dd>{html.escape(str(v))}</dd>' for k, v in facts.items() if v)
  return f'<dl>{rows}</dl>'


def _known(value, extra, form):
  return str(value) + (form.format(extra) if extra else '') if value else ''


def _write_figures(folder: epath.Path, drawings) -> None:
  current = {f'{d.name}.png' for d in drawings}
  for path in [*folder.iterdir()] if folder.exists() else ():
    ours = path.suffix == '.png' and path.name.split('_')[0] in _KINDS_OF_FIGURES
    if ours and path.name not in current:
      path.unlink()
  for drawing in drawings:
    storage.write(folder / f'{drawing.name}.png', drawing.png)
