"""What to do about everything in the findings that looks wrong, or that is good to know."""

import dataclasses
import math
from collections.abc import Iterator, Sequence

from dream_jax.data.checks.duplicates import WHOLE
from dream_jax.data.checks.inspection import Findings, ModalityFindings
from dream_jax.data.checks.verdict import guess_in_words, level, measured

_PERFECT, _SURELY_PERFECT = 0.99, 0.9
_FEW_SAMPLES, _TINY_SPLIT, _SMALL_SPLIT = 10, 50, 200
_LOPSIDED, _UNEQUAL = 10, 3  # The largest class over the smallest.
_SHIFTED_SHARE, _SHIFTED_MEAN = 0.1, 0.25  # Points of a class; standard deviations of the labels.
_BEYOND_CHANCE = 3  # Standard errors.
_OFTEN_EMPTY, _EMPTY_DIFFERS = 0.05, 0.2
_OFTEN_FULL, _OFTEN_UNSEEN, _OFTEN_ZERO = 0.1, 0.1, 0.3
_WILD_SCALE = 1000.0
_MAX_NAMED = 5


@dataclasses.dataclass(frozen=True)
class Advice:
  """One thing worth knowing.

  Attributes:
    kind: 'problem' (look at it before training) or 'note'.
    topic: what it is about, one word or two; the same for every advice of its sort.
    text: what was found.
    todo: what to do about it.
  """

  kind: str
  topic: str
  text: str
  todo: str


def advise(findings: Findings) -> tuple[Advice, ...]:
  """Everything worth knowing about a data set, problems first."""
  found = [
    *_about_identity(findings),
    *_about_sizes(findings),
    *_about_labels(findings),
    *(advice for m in findings.modalities for advice in _about_modality(findings, m)),
    *_about_probes(findings),
  ]
  return tuple(sorted(found, key=lambda advice: advice.kind != 'problem'))


def _about_identity(findings: Findings) -> Iterator[Advice]:
  ids = findings.repeated_ids
  if ids.count:
    yield Advice(
      'problem',
      'repeated ids',
      f'Ids that name more than one sample: {ids.count}, such as {_listed(ids.examples)}.',
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
        f'{_share(found.count, size)} of the {found.second} samples are also in {found.first}, {example}.',
        f'Take them out of {found.first}; otherwise the {found.second} figures reward learning by heart.',
      )
    elif found.what == WHOLE:
      yield Advice(
        'note',
        'repeated samples',
        f'{_share(found.count, size)} of the {found.second} samples repeat another one of that split, {example}.',
        'Keep one of each unless the repetition is meant: they count double.',
      )
    elif found.first != found.second and found.count > count[WHOLE, found.first, found.second]:
      inside = _share(count[found.what, found.first, found.first], findings.sizes[found.first])
      yield Advice(
        'note',
        'shared content',
        f'{found.what}: {_share(found.count, size)} of the {found.second} samples have content that is also in '
        f'{found.first}, {example} (inside {found.first}, {inside} repeat).',
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
          f'There are only {size} training samples.',
          'Use several seeds and a small model, and expect results to change with other training samples.',
        )
    elif size < _SMALL_SPLIT:
      doubt = f': a score of 50 % is uncertain by {98 / math.sqrt(max(size, 1)):.0f} points either way'
      yield Advice(
        'problem' if size < _TINY_SPLIT else 'note',
        'small split',
        f'There are only {size} {name} samples{"" if findings.task == "regression" else doubt}.',
        'Move samples over if there are enough, and do not read small differences.',
      )


def _about_labels(findings: Findings) -> Iterator[Advice]:
  target = findings.target
  for name, count in target.unusable.items():
    if count:
      yield Advice(
        'problem',
        'unusable labels',
        f'{_share(count, findings.sizes[name])} of the {name} labels are no number or no class of the data set.',
        'Correct them or leave those samples out; training would fail or turn to NaN.',
      )
  for name, numbers in target.numbers.items():
    if numbers.outside:
      low, high = findings.label_range
      yield Advice(
        'problem',
        'label range',
        f'{_share(numbers.outside, findings.sizes[name])} of the {name} labels lie outside the declared range '
        f'{low:g} to {high:g} (they go from {numbers.low:.4g} to {numbers.high:.4g}).',
        'Correct the labels or the range.',
      )
    if name == 'train' and numbers.std == 0:
      yield Advice(
        'problem',
        'constant label',
        f'All training labels are {numbers.low:g}.',
        'There is nothing to learn; check the column they come from.',
      )
    elif name == 'train' and numbers.zeros >= _OFTEN_ZERO * findings.sizes[name]:
      yield Advice(
        'note',
        'many zeros',
        f'{_share(numbers.zeros, findings.sizes[name])} of the training labels are exactly zero.',
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
        text = f'{which} is {100 * before:.0f} % of train and {100 * now:.0f} % of {name}.'
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
        f'No {name} sample {"has" if several else "is of"} {noun} {_listed(absent)}.',
        f'{never}: add samples, or remove the {noun} from the data set.',
      )
  counts = target.counts['train']
  rare = [f'{target.names[c]} ({count})' for c, count in enumerate(counts) if 0 < count < _FEW_SAMPLES]
  if rare:
    yield Advice(
      'problem',
      'rare class',
      f'Fewer than {_FEW_SAMPLES} training samples {"have" if several else "are of"} {noun} {_listed(rare)}.',
      f'Collect more, or join it with another {noun}.',
    )
  present = [count for count in counts if count]
  if not several and present and max(present) >= _UNEQUAL * min(present):
    ratio = max(present) / min(present)
    yield Advice(
      'problem' if ratio >= _LOPSIDED else 'note',
      'imbalance',
      f'The largest class has {ratio:.1f} times as many training samples as the smallest; '
      f'{guess_in_words(findings)} is right in {100 * max(present) / sum(present):.0f} % of them.',
      'Judge by weighted F1 and by recall averaged over classes (uar) too: accuracy rewards ignoring small classes.',
    )
  if several:
    for name, count in target.without.items():
      if name == 'train' and count:
        yield Advice(
          'note',
          'no label',
          f'{_share(count, findings.sizes[name])} of the training samples have no label at all.',
          'Fine if none applies; if they were never labelled, leave them out.',
        )


def _about_modality(findings: Findings, modality: ModalityFindings) -> Iterator[Advice]:
  name = modality.name
  if modality.non_finite:
    yield Advice(
      'problem',
      'NaN',
      f'{name} holds {modality.non_finite} NaN or infinite values.',
      'Their frames are treated as missing; mend the source if they are more than a few.',
    )
  yield from _about_empty(findings, modality)
  yield from _about_values(modality)
  yield from _about_lengths(findings, modality)
  yield from _about_tokens(modality)


def _about_values(modality: ModalityFindings) -> Iterator[Advice]:
  name, values, width = modality.name, modality.values, modality.shape[-1]
  if values is None or not values.frames:
    return
  if values.constant:
    which = _listed([str(c) for c in values.constant])
    yield Advice(
      'problem' if len(values.constant) == width else 'note',
      'constant',
      f'{name}: {"channels" if modality.kind == "image" else "features"} that never change in training: '
      f'{len(values.constant)} of {width} (position {which}).',
      'Check that they were extracted properly; they carry nothing and can be left out.',
    )
  if values.scale_ratio >= _WILD_SCALE:
    yield Advice(
      'note',
      'scale',
      f'{name}: the scales of its features differ by a factor of {factor(values.scale_ratio)} (largest at position '
      f'{values.widest}, smallest at {values.narrowest}).',
      'Nothing, unless a unit is mistaken: training rescales every feature by itself.',
    )


def _about_lengths(findings: Findings, modality: ModalityFindings) -> Iterator[Advice]:
  lengths, size = modality.lengths.get('train'), findings.sizes['train']
  if lengths is None or lengths.full < _OFTEN_FULL * size:
    return
  everyone = lengths.full == size
  yield Advice(
    'note',
    'full length',
    f'{modality.name}: {"all" if everyone else _share(lengths.full, size)} of the training samples fill all '
    f'{modality.shape[0]} {"tokens" if modality.kind == "tokens" else "frames"}.',
    'If lengths differ in the source, padding was counted as content: give the lengths.'
    if everyone
    else 'Longer ones may have been cut; raise the limit if the end matters.',
  )


def _about_tokens(modality: ModalityFindings) -> Iterator[Advice]:
  if modality.tokens is None:
    return
  for split, share in modality.tokens.unseen.items():
    if share >= _OFTEN_UNSEEN:
      yield Advice(
        'note',
        'unseen tokens',
        f'{modality.name}: {100 * share:.0f} % of the {split} tokens never occur in training.',
        'Models cannot know them; a coarser vocabulary (subwords) or pretrained features would help.',
      )
  if modality.tokens.unknown['train'] >= _OFTEN_UNSEEN:
    yield Advice(
      'note',
      'unknown tokens',
      f'{modality.name}: {100 * modality.tokens.unknown["train"]:.0f} % of the training tokens are the unknown id.',
      'Use a larger vocabulary.',
    )


def _about_empty(findings: Findings, modality: ModalityFindings) -> Iterator[Advice]:
  shares = {split: count / max(findings.sizes[split], 1) for split, count in modality.empty.items()}
  for split, share in shares.items():
    if share == 1 and findings.sizes[split]:
      yield Advice(
        'problem',
        'missing',
        f'{modality.name} is all zero in every {split} sample.',
        'Check how it was exported; if you do not have it, remove the modality.',
      )
  if 1 in shares.values():
    return
  listed = ', '.join(f'{100 * share:.0f} % in {split}' for split, share in shares.items())
  if max(shares.values()) - min(shares.values()) >= _EMPTY_DIFFERS:
    yield Advice(
      'problem',
      'missing',
      f'{modality.name} is all zero far more often in one split than in another: {listed}.',
      'Draw the splits alike, or results will mostly show that difference.',
    )
  elif max(shares.values()) >= _OFTEN_EMPTY:
    yield Advice(
      'note',
      'missing',
      f'{modality.name} is all zero, so probably missing: {listed}.',
      'Models here can learn from such data; do not fill the gaps.',
    )
  frames = modality.empty_frames.get('train', 0.0)
  if frames >= _OFTEN_EMPTY:
    yield Advice(
      'note',
      'missing frames',
      f'{modality.name}: {100 * frames:.0f} % of the training frames are all zero.',
      'Expected where a detector failed or the signal is silent; if they are padding, give the true lengths.',
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
      f'{_listed(silent)} alone {"does" if len(silent) == 1 else "do"} not predict the target here.',
      'Check that its rows belong to the same samples; it may still help a richer model, or only beside the others.',
    )


def factor(value: float) -> str:
  """A ratio from 1 upwards as people write it: '2.3', '4,500'."""
  return f'{value:.2g}' if value < 10 else f'{value:,.0f}' if value < 1e7 else f'{value:.0e}'


def _share(count: int, size: int) -> str:
  percent = 100 * count / max(size, 1)
  return f'{count} of {size} ({percent:.0f} %)' if percent >= 1 else f'{count} of {size} ({percent:.2g} %)'


def _listed(names: Sequence[str]) -> str:
  more = f' and {len(names) - _MAX_NAMED} others' if len(names) > _MAX_NAMED else ''
  return ', '.join(names[:_MAX_NAMED]) + more
