"""What to do about everything in the findings that looks wrong, or that is good to know."""

import math
from collections.abc import Iterator

from dream_jax.datacheck.duplicates import WHOLE
from dream_jax.datacheck.inspection import Findings
from dream_jax.datacheck.modality_advice import about_modality
from dream_jax.datacheck.verdict import guess_in_words, level, measured
from dream_jax.datacheck.words import Advice, counted, listed, percent, share_of, verb

_PERFECT, _SURELY_PERFECT = 0.99, 0.9
_FEW_SAMPLES, _TINY_SPLIT, _SMALL_SPLIT = 10, 50, 200
_LOPSIDED, _UNEQUAL = 10, 3  # The largest class over the smallest.
_SHIFTED_SHARE, _SHIFTED_MEAN = 0.1, 0.25  # Points of a class; standard deviations of the labels.
_BEYOND_CHANCE = 3  # Standard errors.
_OFTEN_ZERO = 0.3


def advise(findings: Findings) -> tuple[Advice, ...]:
  """Everything worth knowing about a data set, problems first."""
  found = [
    *_about_identity(findings),
    *_about_sizes(findings),
    *_about_labels(findings),
    *(advice for m in findings.modalities for advice in about_modality(findings, m)),
    *_about_probes(findings),
  ]
  return tuple(sorted(found, key=lambda advice: advice.kind != 'problem'))


def _about_identity(findings: Findings) -> Iterator[Advice]:
  ids = findings.repeated_ids
  if ids.count:
    yield Advice(
      'problem',
      'repeated ids',
      f'Ids that name more than one sample: {ids.count}, such as {listed(ids.examples)}.',
      'Give every sample an id of its own: what goes missing in a test is decided by it.',
    )
  count = {(r.what, r.first, r.second): r.count for r in findings.repeats}
  for found in findings.repeats:
    if not found.count:
      continue
    size = findings.sizes[found.second]
    example = f'for instance {found.examples[0][0]} and {found.examples[0][1]}'
    if found.what == WHOLE and found.first != found.second:
      yield Advice(
        'problem',
        'leak',
        f'{share_of(found.count, size)} of the {found.second} samples '
        f'{verb(found.count, "are", "is")} also in {found.first}, {example}.',
        f'Take them out of {found.first}; otherwise the {found.second} figures reward learning by heart.',
      )
    elif found.what == WHOLE:
      yield Advice(
        'note',
        'repeated samples',
        f'{share_of(found.count, size)} of the {found.second} samples '
        f'{verb(found.count, "repeat", "repeats")} another one of that split, {example}.',
        'Keep one of each unless the repetition is meant: they count double.',
      )
    elif found.first != found.second and found.count > count[WHOLE, found.first, found.second]:
      inside = share_of(count[found.what, found.first, found.first], findings.sizes[found.first])
      yield Advice(
        'note',
        'shared content',
        f'{found.what}: {share_of(found.count, size)} of the {found.second} samples '
        f'{verb(found.count, "have", "has")} content that is also in {found.first}, {example} (inside {found.first}, '
        f'{inside} repeat).',
        'Harmless where contents are few, as with short sentences; if it is the same recording, keep all its samples '
        'in one split.',
      )
  if findings.conflicts.groups:
    one, other = findings.conflicts.examples[0]
    yield Advice(
      'problem',
      'contradicting labels',
      f'{findings.conflicts.samples} samples that are the same as others carry different labels, for instance {one} '
      f'and {other}.',
      'Decide which label is right, or leave these samples out: nothing can learn both.',
    )


def _about_sizes(findings: Findings) -> Iterator[Advice]:
  for name, size in findings.sizes.items():
    if name == 'train':
      if size < _SMALL_SPLIT:
        yield Advice(
          'problem' if size < _TINY_SPLIT else 'note',
          'small split',
          f'{_there_are(size, "training")}.',
          'Use several seeds and a small model, and expect results to change with other training samples.',
        )
    elif size < _SMALL_SPLIT:
      doubt = f': a score of 50 % is uncertain by {min(50.0, 98 / math.sqrt(max(size, 1))):.0f} points either way'
      yield Advice(
        'problem' if size < _TINY_SPLIT else 'note',
        'small split',
        f'{_there_are(size, name)}{"" if findings.task == "regression" or not size else doubt}.',
        'Move samples over if there are enough, and do not read small differences.',
      )


def _about_labels(findings: Findings) -> Iterator[Advice]:
  target = findings.target
  for name, count in target.unusable.items():
    if count:
      yield Advice(
        'problem',
        'unusable labels',
        f'{share_of(count, findings.sizes[name])} of the {name} labels '
        f'{verb(count, "are", "is")} no number or no class of the data set.',
        'Correct them or leave those samples out; training would fail or turn to NaN.',
      )
  for name, numbers in target.numbers.items():
    if numbers.outside:
      low, high = findings.label_range
      yield Advice(
        'problem',
        'label range',
        f'{share_of(numbers.outside, findings.sizes[name])} of the {name} labels '
        f'{verb(numbers.outside, "lie", "lies")} outside the declared range {low:g} to {high:g} (labels go from '
        f'{numbers.low:.4g} to {numbers.high:.4g}).',
        'Correct the labels or the range.',
      )
    if numbers.low == numbers.high and findings.sizes[name] > 1:
      yield Advice(
        'problem',
        'constant label',
        f'All {"training" if name == "train" else name} labels are {numbers.low:g}.',
        'There is nothing to learn; check the column they come from.'
        if name == 'train'
        else f'{name.capitalize()} figures say nothing then; check the column they come from, or split anew.',
      )
    elif name == 'train' and numbers.zeros >= _OFTEN_ZERO * findings.sizes[name]:
      yield Advice(
        'note',
        'many zeros',
        f'{share_of(numbers.zeros, findings.sizes[name])} of the training labels '
        f'{verb(numbers.zeros, "are", "is")} exactly zero.',
        'Make sure that zero is a measurement and not a gap; if it is, look at correlation beside the mean error.',
      )
  if target.counts:
    yield from _about_classes(findings)
  yield from _about_shift(findings)


def _about_shift(findings: Findings) -> Iterator[Advice]:
  """Splits whose labels are distributed otherwise than those of training, by more than chance explains."""
  target = findings.target
  usable = {name: size - target.unusable[name] for name, size in findings.sizes.items()}
  for name, size in usable.items():
    if name == 'train' or not size or not usable['train']:
      continue
    chance = _BEYOND_CHANCE * math.sqrt(1 / size + 1 / usable['train'])
    text = ''
    if target.counts:
      pairs = zip(target.names, target.counts['train'], target.counts[name], strict=True)
      shares = [(abs(b / size - a / usable['train']), c, a / usable['train'], b / size) for c, a, b in pairs]
      difference, which, before, now = max(shares, key=lambda share: round(share[0], 9))  # The first of equals.
      if difference >= max(_SHIFTED_SHARE, chance * math.sqrt(before * (1 - before))):
        text = f'{which} is {percent(before)} of train and {percent(now)} of {name}.'
    else:
      before, now = target.numbers['train'], target.numbers[name]
      if abs(now.mean - before.mean) > max(_SHIFTED_MEAN, chance) * before.std:
        text = f'The mean label is {before.mean:.3g} in train and {now.mean:.3g} in {name}.'
    if text:
      yield Advice(
        'problem',
        'label shift',
        text,
        'Draw the splits at random (keeping groups together), or expect scores that mostly show this difference.',
      )


def _about_classes(findings: Findings) -> Iterator[Advice]:
  target, several = findings.target, findings.task == 'multilabel'
  noun = 'label' if several else 'class'
  for name, counts in target.counts.items():
    absent = [target.names[c] for c, count in enumerate(counts) if not count]
    if absent and sum(counts):
      never = 'No model can learn it' if name == 'train' else f'Nothing {name} figures say is about it'
      yield Advice(
        'problem',
        'absent class',
        f'No {name} sample {"has" if several else "is of"} {noun} {listed(absent)}.',
        f'{never}: add samples, or remove the {noun} from the data set.',
      )
  counts = target.counts['train']
  rare = [f'{target.names[c]} ({count})' for c, count in enumerate(counts) if 0 < count < _FEW_SAMPLES]
  if rare:
    yield Advice(
      'problem',
      'rare class',
      f'Fewer than {_FEW_SAMPLES} training samples {"have" if several else "are of"} {noun} {listed(rare)}.',
      f'Collect more, or join it with another {noun}.',
    )
  present = [count for count in counts if count]
  if not several and present and max(present) >= _UNEQUAL * min(present):
    ratio = max(present) / min(present)
    yield Advice(
      'problem' if ratio >= _LOPSIDED else 'note',
      'imbalance',
      f'The largest class has {ratio:.1f} times as many training samples as the smallest; '
      f'{guess_in_words(findings)} is right in {percent(max(present) / sum(present))} of them.',
      'Judge by weighted F1 and by recall averaged over classes (uar) too: accuracy rewards ignoring small classes.',
    )
  if several:
    for name, count in target.without.items():
      if name == 'train' and count:
        yield Advice(
          'note',
          'no label',
          f'{share_of(count, findings.sizes[name])} of the training samples '
          f'{verb(count, "have", "has")} no label at all.',
          'Fine if none applies; if they were never labelled, leave them out.',
        )


def _about_probes(findings: Findings) -> Iterator[Advice]:
  probes = findings.probes
  if probes.baseline is None or probes.together is None:
    return
  for name, score in probes.modalities.items():
    if probes.metric == 'mae':
      perfect = (score.order or 0.0) >= _PERFECT
    else:
      perfect = score.value >= _PERFECT * probes.perfect and score.low >= _SURELY_PERFECT * probes.perfect
      # Where guessing is nearly perfect too, only the order can tell.
      perfect = perfect and (score.low > probes.baseline.value or (score.order or 0.0) >= _PERFECT)
    if perfect:
      yield Advice(
        'problem',
        'too good',
        f'{name} alone predicts the target almost perfectly ({measured(probes, score)}).',
        'Check that the answer is not part of it; if it truly is this easy, the other modalities cannot add anything.',
      )
  silent = [name for name, score in probes.modalities.items() if level(probes, score) == 'nothing']
  if len(silent) == len(probes.modalities) and level(probes, probes.together) == 'nothing':
    yield Advice(
      'problem',
      'no signal',
      'No modality predicts the target, nor do all together.',
      'Check that labels and samples are matched row by row; if they are, only a richer model might find something.',
    )
  elif silent:
    yield Advice(
      'note',
      'no signal',
      f'{listed(silent)} alone {"does" if len(silent) == 1 else "do"} not predict the target here.',
      'Check that its rows belong to the same samples; it may still help a richer model, or only beside the others.',
    )


def _there_are(size: int, split: str) -> str:
  if not size:
    return f'There are no {split} samples'
  return f'There {"is" if size == 1 else "are"} only {counted(size, f"{split} sample")}'
