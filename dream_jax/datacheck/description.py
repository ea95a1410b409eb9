"""`describe(findings)`: the findings as text for a terminal."""

import textwrap
from collections.abc import Iterator

from dream_jax.datacheck import verdict
from dream_jax.datacheck.advice import advise
from dream_jax.datacheck.duplicates import WHOLE
from dream_jax.datacheck.inspection import Findings
from dream_jax.datacheck.probe import Score
from dream_jax.datacheck.words import factor, percent
from dream_jax.report.table import Table

WIDTH = 110
_MAX_CLASSES = 30
_MAX_NAME = 30
_TASKS = {
  'regression': 'a number',
  'binary': 'yes or no',
  'multiclass': 'one of {} classes',
  'multilabel': 'any of {} labels',
}
_CAVEAT = (
  'The model behind these figures is deliberately simple: each modality is reduced to one list of numbers per sample '
  '(averages over time, word counts, small pictures) and its answer is a weighted sum of them: a linear probe on '
  'pooled features. It shows what is easy to see: a modality that looks weak here may tell a trained model more. It '
  'was fitted on training samples and scored on validation samples; test labels were not used.'
)


def describe(findings: Findings) -> str:
  """Tables, a verdict and what to do, in lines of at most WIDTH characters."""
  sizes = ', '.join(f'{size} {name}' for name, size in findings.sizes.items())
  task = _TASKS[findings.task].format(len(findings.target.names))
  head = f'{findings.name} ({findings.data_kind} data): {sizes} samples; to predict: {task}'
  tables = [table.to_text(WIDTH) for table in _tables(findings)]
  return '\n'.join([*textwrap.wrap(head, WIDTH), '', *tables, *_verdict(findings), '', *_advice(findings)]) + '\n'


def _tables(findings: Findings) -> Iterator[Table]:
  yield _modalities(findings)
  if any(m.lengths for m in findings.modalities):
    yield _lengths(findings)
  if any(m.values for m in findings.modalities):
    yield _values(findings)
  if any(m.tokens for m in findings.modalities):
    yield _tokens(findings)
  yield _numbers(findings) if findings.task == 'regression' else _classes(findings)
  yield _repeats(findings)
  if findings.probes.baseline is not None:
    yield _probes(findings)


def _modalities(findings: Findings) -> Table:
  rows = []
  for m in findings.modalities:
    shape = ' x '.join(map(str, m.shape))
    empty = (_count(m.empty[split], size) for split, size in findings.sizes.items())
    rows.append((m.name, m.kind, shape, str(m.non_finite), *empty))
  columns = ('', 'kind', 'shape', 'NaN or infinite', *(f'all zero: {split}' for split in findings.sizes))
  note = (
    'All zero: samples in which the modality holds nothing but zeros (tokens: nothing but unknown words). They most '
    'likely lack it.'
  )
  return Table('Modalities', columns, tuple(rows), note)


def _lengths(findings: Findings) -> Table:
  rows = []
  for m in findings.modalities:
    for split, lengths in m.lengths.items():
      zeros = _percent(m.empty_frames[split]) if m.empty_frames else '–'
      full = _percent(lengths.full / findings.sizes[split])
      numbers = (str(lengths.shortest), f'{lengths.median:g}', str(lengths.longest), str(m.shape[0]))
      rows.append((m.name, split, *numbers, full, zeros))
  columns = ('', 'split', 'shortest', 'median', 'longest', 'limit', 'at the limit', 'frames of zeros')
  return Table('Lengths', columns, tuple(rows), 'At the limit: samples that fill it, or were longer and have been cut.')


def _values(findings: Findings) -> Table:
  rows = []
  for m in findings.modalities:
    if m.values is None:
      continue
    v = m.values
    constant = f'{len(v.constant)} of {m.shape[-1]}'
    rows.append(
      (m.name, *(f'{value:.4g}' for value in (v.low, v.high, v.mean, v.std)), constant, factor(v.scale_ratio))
    )
  columns = ('', 'lowest', 'highest', 'mean', 'deviation', 'constant features', 'largest / smallest scale')
  note = 'Training samples without what is all zero. Features of an image are its channels.'
  return Table('Values', columns, tuple(rows), note)


def _tokens(findings: Findings) -> Table:
  rows = []
  splits = list(findings.sizes)
  for m in findings.modalities:
    if m.tokens is None:
      continue
    unknown = (_percent(m.tokens.unknown[split]) for split in splits)
    unseen = (_percent(m.tokens.unseen[split]) for split in splits[1:])
    rows.append((m.name, f'{m.tokens.distinct} of {m.vocab_size}', *unknown, *unseen))
  columns = ('', 'ids in use', *(f'unknown: {s}' for s in splits), *(f'new in {s}' for s in splits[1:]))
  return Table('Tokens', columns, tuple(rows), 'New: tokens that never occur in training.')


def _classes(findings: Findings) -> Table:
  target, sizes = findings.target, findings.sizes
  order = range(len(target.names))
  if len(order) > _MAX_CLASSES:
    order = sorted(order, key=lambda c: -target.counts['train'][c])[:_MAX_CLASSES]
  usable = {split: size - target.unusable[split] for split, size in sizes.items()}
  rows = [
    (textwrap.shorten(target.names[c], _MAX_NAME), *(_count(target.counts[s][c], usable[s]) for s in sizes))
    for c in order
  ]
  if target.without:
    rows.append(('(no label)', *(_count(target.without[s], usable[s]) for s in sizes)))
  rows += _unusable(findings)
  several = findings.task == 'multilabel'
  title = 'Samples with each label' if several else 'Samples of each class'
  hidden = len(target.names) - len(order)
  note = f'The {len(order)} most frequent in training; {hidden} others are not shown.' if hidden else ''
  return Table(title, ('', *sizes), tuple(rows), note)


def _unusable(findings: Findings) -> list[tuple[str, ...]]:
  unusable = findings.target.unusable
  if not any(unusable.values()):
    return []
  return [('(unusable)', *(_count(unusable[s], size) for s, size in findings.sizes.items()))]


def _numbers(findings: Findings) -> Table:
  target = findings.target
  rows = []
  for split, n in target.numbers.items():
    values = (f'{value:.3g}' for value in (n.low, n.median, n.mean, n.high, n.std))
    unusable = str(target.unusable[split])
    rows.append((split, *values, _count(n.zeros, findings.sizes[split] - target.unusable[split]), unusable))
  columns = ('', 'lowest', 'median', 'mean', 'highest', 'deviation', 'exactly zero', 'unusable')
  return Table('Labels', columns, tuple(rows), _histogram(findings))


def _histogram(findings: Findings) -> str:
  numbers, edges = findings.target.numbers.get('train'), findings.target.edges
  if numbers is None or numbers.std == 0:
    return ''
  total = sum(numbers.bins)
  parts = [
    f'{_percent(count / total)} from {low:.3g} to {high:.3g}'
    for count, low, high in zip(numbers.bins, edges[:-1], edges[1:], strict=True)
  ]
  return f'Of the training labels, {", ".join(parts)}.'


def _repeats(findings: Findings) -> Table:
  splits = list(findings.sizes)
  pairs = [(s, s) for s in splits] + [(a, b) for j, b in enumerate(splits) for a in splits[:j]]
  by_place = {(r.what, r.first, r.second): r.count for r in findings.repeats}
  rows = []
  for what in (*(m.name for m in findings.modalities), WHOLE):
    rows.append((what, *(_count(by_place[what, a, b], findings.sizes[b]) for a, b in pairs)))
  columns = ('', *(f'in {a}' if a == b else f'{b}, in {a}' for a, b in pairs))
  note = (
    '"in train": samples that repeat an earlier one of that split; "test, in train": test samples whose content is '
    'also in train. What is all zero does not count.'
  )
  return Table('Identical content', columns, tuple(rows), note)


def _probes(findings: Findings) -> Table:
  probes = findings.probes
  assert probes.baseline is not None
  assert probes.together is not None
  rows = [(verdict.guess_in_words(findings), verdict.measured(probes, probes.baseline), '–', '–')]
  for name, score in (*probes.modalities.items(), ('all together', probes.together)):
    rows.append((name, verdict.measured(probes, score), _order(findings, score), verdict.level(probes, score)))
  measure = {'mae': 'mean error', 'f1_samples': 'F1'}.get(probes.metric, 'right answers')
  regression = findings.task == 'regression'
  order = 'correlation' if regression else 'right order'
  note = (
    'Correlation with the true label: 0 is guessing, 1 is perfect.'
    if regression
    else 'Right order: of two samples of which one has the class, how often it gets the higher score for it; 50 % is '
    'guessing.'
  )
  left_out = f' {probes.num_left_out} training samples were left out to save time.' if probes.num_left_out else ''
  return Table(
    'What a simple model can tell from each modality alone',
    ('', f'{measure} [95 %]', order, ''),
    tuple(rows),
    f'{probes.num_train} training, {probes.num_validation} validation samples. Brackets: where the figure may lie, '
    f'with 95 % certainty, for other validation samples. {note}{left_out}',
  )


def _order(findings: Findings, score: Score) -> str:
  if score.order is None:
    return '–'
  if findings.task == 'regression':
    return f'{score.order:.2f} [{score.order_low:.2f}, {score.order_high:.2f}]'
  return percent(score.order)


def _verdict(findings: Findings) -> list[str]:
  lines = ['In short', '']
  if findings.probes.skipped:
    return [*lines, *_wrapped(f'Modalities were not tried: {findings.probes.skipped}.')]
  for sentence in verdict.sentences(findings):
    lines += _wrapped(sentence)
  return [*lines, '', *_wrapped(_CAVEAT)]


def _advice(findings: Findings) -> list[str]:
  found = advise(findings)
  if not found:
    return ['Nothing looks wrong.']
  lines = []
  for kind, title in (('problem', 'Look at this before you train'), ('note', 'Good to know')):
    chosen = [a for a in found if a.kind == kind]
    if chosen:
      lines += ['', title] if lines else [title]
    for number, a in enumerate(chosen, start=1):
      lead = f'{number:>3}. '
      lines += ['', *textwrap.wrap(a.text, WIDTH, initial_indent=lead, subsequent_indent=' ' * len(lead))]
      lines += textwrap.wrap(f'-> {a.todo}', WIDTH, initial_indent='     ', subsequent_indent='        ')
  return lines


def _wrapped(text: str) -> list[str]:
  return textwrap.wrap(text, WIDTH)


def _count(count: int, size: int) -> str:
  return f'{count} ({_percent(count / size)})' if count and size else str(count)


def _percent(share: float) -> str:
  return percent(share, fine_below=10.0)
