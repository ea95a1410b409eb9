"""The sections of the page: of one run, and of a study, whose regimes each have the sections of a run."""

import base64
import html
import json

from dream_jax.report import answer, study_tables, tables
from dream_jax.report import results as read

_INTERVALS = """
<ul>
<li><strong>Tables and bands in the curves</strong>: 95 % interval of the mean over seeds (Student t). It covers another
training run (initial weights, dropout, injected missingness, order of the data) judged on the same test set. It does
not cover another test set.</li>
<li><strong>Comparisons</strong>: 95 % interval from a paired bootstrap that resamples seeds and test samples. It covers
another training run judged on another test set of the same size and kind. It does not cover another training set.</li>
<li><strong>Win, tie, loss</strong>: from the p value of that bootstrap after Holm correction over the opponents under
each protocol, at 5 %. A tie means that the data do not tell the two apart; it does not show that they are equal.</li>
<li><strong>Mean over conditions</strong>: the conditions of one protocol count equally. AUILC is the area under the
curve over the missing rate (trapezoids), divided by the span of the rates.</li>
</ul>
"""


_GLOSSARY = """
<dl>
<dt>Modality</dt><dd>One kind of input, such as text or a sensor. What a sample has of it is a slot.</dd>
<dt>Protocol</dt><dd>What is removed from the test samples, and what stands there instead: zeros, noise, or the content
of another sample (swap). Its conditions are the rates, or the subsets that are kept.</dd>
<dt>Complete</dt><dd>Nothing is removed. What data lack from the start is still missing.</dd>
<dt>Presence</dt><dd>How much of a slot is real content, as the model estimates it. Nobody tells it.</dd>
<dt>Contribution</dt><dd>What a modality gave to the prediction of one sample, as the model estimates it.</dd>
<dt>Gate</dt><dd>How much of a slot was replaced by a reconstruction from the others.</dd>
<dt>Soft mask</dt><dd>The weight of a modality in the fusion.</dd>
<dt>Told the mask (oracle)</dt><dd>A method that is told what is missing. It is a reference and no contender.</dd>
</dl>
"""


def make_sections(results, drawings, workdir):
  """[(anchor, heading, HTML)] of everything the results hold; what is absent leaves no empty heading."""
  sections = _study(results, drawings) if read.regimes(results) else _run(results, drawings)
  ends = [
    ('use', 'Use a model', _snippet(results, workdir)),
    ('intervals', 'How to read the intervals', _INTERVALS),
    ('glossary', 'Words', _GLOSSARY),
    ('environment', 'Environment and configuration', _environment(results)),
  ]
  return [s for s in (('answer', 'What it says', _answer(results)), *sections, *ends) if s[2]]


def _first(results):
  """Results of a run, or of the first regime of a study."""
  return read.of_regime(results, read.regimes(results)[0]) if read.regimes(results) else results


def _snippet(results, workdir):
  """Lines to paste; '' where no method can be used."""
  view = _first(results)
  best = answer.ranked(view)
  if not best:
    return ''
  method = view['methods'][best[0]].get('method') or best[0]
  names = ', '.join(f'{name!r}: ...' for name in results.get('modalities') or ())
  code = (
    'import dream_jax\n\n'
    f'predictor = dream_jax.load({workdir!r}, method={method!r})\n'
    '# Raw arrays [rows, ...]; a modality may be absent or None, which counts as missing.\n'
    f'inputs = {{{names}}}\n'
    'print(predictor(inputs).prediction)\n'
  )
  return f'<pre>{html.escape(code)}</pre>'


def _answer(results):
  parts = []
  for question, said in answer.sentences(results).items():
    items = ''.join(f'<li>{html.escape(sentence)}</li>' for sentence in said)
    parts.append(f'<h3>{question}</h3><ul>{items}</ul>')
  return ''.join(parts) + (_html([answer.modality_table(_first(results))]) if parts else '')


def _run(results, drawings):
  return [
    ('results', 'Results', tables.results_table(results).to_html()),
    ('native', 'What your data lack', _html([tables.native_table(results)])),
    ('comparisons', 'Comparisons', _html(tables.comparison_tables(results)) + _figures(drawings, 'comparisons')),
    ('robustness', 'Robustness', _figures(drawings, 'robustness', 'conditions')),
    ('contributions', 'Contributions and recognition', _contributions(results, drawings)),
    ('confidence', 'Confidence', _html([tables.calibration_table(results)])),
    ('details', 'Every condition and metric', _details(results)),
    ('methods', 'Methods', tables.methods_table(results).to_html()),
  ]


def _study(results, drawings):
  """A study: standings, then every regime, then what is apart from the results. Figures are of the first regime."""
  first, *others = read.regimes(results)
  view = read.of_regime(results, first)
  sections = [('standings', 'Standings', _html([study_tables.standings_table(results)]))]
  for number, regime in enumerate((first, *others)):
    here = read.of_regime(results, regime)
    content = tables.results_table(here).to_html() + _html([tables.native_table(here)])
    content += _fold('Comparisons', _html(tables.comparison_tables(here)))
    if regime == first:
      content += _figures(drawings, 'comparisons')
    else:
      content += _fold('What modalities are worth', _worth(here))
    content += _fold('Every condition and metric', _details(here))
    sections.append((f'regime{number}', f'Training data: {html.escape(regime)}', content))
  sections += [
    ('robustness', f'Robustness, {html.escape(first)} training data', _figures(drawings, 'robustness', 'conditions')),
    (
      'contributions',
      f'Contributions and recognition, {html.escape(first)} training data',
      _contributions(view, drawings),
    ),
    ('confidence', f'Confidence, {html.escape(first)} training data', _html([tables.calibration_table(view)])),
    (
      'balance',
      f'What modalities are worth, {html.escape(first)} training data',
      _worth(view) + _figures(drawings, 'imbalance'),
    ),
    ('methods', 'Methods and cost', _html([study_tables.cost_table(results), study_tables.settings_table(results)])),
    ('habit', 'Not a result: selection on the test split', _html([study_tables.selection_table(results)])),
  ]
  return sections


def _html(found):
  return ''.join(table.to_html() for table in found if table is not None)


def _fold(heading, content):
  return f'<details><summary>{heading}</summary>{content}</details>' if content else ''


def _worth(results):
  return _html([study_tables.balance_table(results), study_tables.fidelity_table(results)])


def _contributions(results, drawings):
  found = [tables.contribution_table(results), tables.presence_table(results), tables.scores_table(results)]
  return _html(found) + _figures(drawings, 'contributions')


def _details(results):
  parts = [tables.intervals_table(results).to_html()]
  for protocol in read.protocols(results):
    content = tables.conditions_table(results, protocol).to_html() + tables.metrics_table(results, protocol).to_html()
    parts.append(_fold(html.escape(protocol), content))
  return ''.join(parts)


def _environment(results):
  parts = []
  for key, heading in (('environment', 'Environment'), ('config', 'Configuration')):
    if results.get(key):
      text = html.escape(json.dumps(results[key], indent=2, ensure_ascii=False))
      parts.append(
        f'<details{" open" if key == "environment" else ""}><summary>{heading}</summary><pre>{text}</pre></details>'
      )
  return ''.join(parts)


def _figures(drawings, *kinds):
  return ''.join(_embedded(d) for d in drawings if d.name.split('_')[0] in kinds)


def _embedded(drawing):
  data = base64.b64encode(drawing.png).decode('ascii')
  caption, alt = html.escape(drawing.caption), html.escape(drawing.alt, quote=True)
  return f'<figure><img src="data:image/png;base64,{data}" alt="{alt}"><figcaption>{caption}</figcaption></figure>\n'
