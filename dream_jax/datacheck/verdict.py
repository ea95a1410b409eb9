"""How strong each modality is, in words: what the probes' scores mean."""

from dream_jax.datacheck.inspection import Findings
from dream_jax.datacheck.probe import Probes, Score
from dream_jax.datacheck.words import percent

_CHANCE = 0.05  # Largest p value that counts as information.
_STRONG, _USEFUL = 0.5, 0.2  # Shares of the way from guessing to perfect.
_STRONG_CORRELATION, _USEFUL_CORRELATION = 0.6, 0.3


def level(probes: Probes, score: Score) -> str:
  """'strong', 'useful', 'weak', 'hint' (orders samples better than chance, answers not clearly better) or 'nothing'."""
  assert probes.baseline is not None
  if probes.metric == 'mae':
    if score.order is None or score.p > _CHANCE:
      return 'nothing'
    return _grade(score.order, _STRONG_CORRELATION, _USEFUL_CORRELATION)
  guess = probes.baseline.value
  if probes.perfect > guess and score.low > guess:
    return _grade((score.value - guess) / (probes.perfect - guess), _STRONG, _USEFUL)
  return 'hint' if score.p <= _CHANCE else 'nothing'


def measured(probes: Probes, score: Score) -> str:
  """A score with its interval as people write it: '76 % [71, 81]', '0.54 [0.48, 0.61]'."""
  if probes.metric == 'mae':
    return f'{score.value:.3g} [{score.low:.3g}, {score.high:.3g}]'
  low, high = (percent(bound).removesuffix(' %') for bound in (score.low, score.high))
  return f'{percent(score.value)} [{low}, {high}]'


def guess_in_words(findings: Findings) -> str:
  """What the baseline answers to every sample."""
  if findings.task == 'regression':
    return 'guessing the median'
  if findings.task == 'multilabel':
    return 'guessing the most frequent labels'
  return 'guessing the majority class'


def majority_class(findings: Findings) -> str:
  """Name of the most frequent class of the training split."""
  counts = findings.target.counts['train']
  return findings.target.names[counts.index(max(counts))]


def sentences(findings: Findings) -> tuple[str, ...]:
  """The modalities in plain sentences, strongest first; empty without probes."""
  probes = findings.probes
  if probes.baseline is None or probes.together is None:
    return ()
  sign = 1 if probes.higher_is_better else -1
  guess, value = guess_in_words(findings), measured(probes, probes.baseline).partition(' [')[0]
  what = {'mae': 'gives a mean error of {}', 'f1_samples': 'reaches an F1 of {}'}.get(
    probes.metric, 'gets {} of the validation samples right'
  )
  which = f', {majority_class(findings)},' if probes.metric == 'accuracy' else ''
  lines = [f'{guess.capitalize()}{which} {what.format(value)}.']
  names = sorted(probes.modalities, key=lambda name: -sign * probes.modalities[name].value)
  for name in names:
    score = probes.modalities[name]
    found = level(probes, score)
    ending = {
      'strong': 'strong.',
      'useful': 'useful.',
      'weak': 'weak, but it follows the target more than chance would.'
      if probes.metric == 'mae'
      else f'weak, but better than {guess}.',
      'hint': f'not clearly better than {guess} ({value}), but it tells something: it puts samples in a better order '
      f'than chance ({percent(score.order or 0.0)} of pairs).',
      'nothing': f'more cannot be told: {guess} scores as well as faultless answers would ({value}).'
      if probes.metric != 'mae' and probes.perfect <= probes.baseline.value
      else f'worse than {guess} ({value}): what it shows in training does not hold in validation.'
      if probes.metric != 'mae' and score.high < probes.baseline.value
      else f'not distinguishable from {guess} ({value}).',
    }[found]
    lines.append(f'{name} alone {_reaches(probes, score)}: {ending}')
  best = probes.modalities[names[0]]
  lines.append(f'All together {_reaches(probes, probes.together)}: {_compare(probes, best, names[0])}')
  return tuple(lines)


def _grade(value: float, strong: float, useful: float) -> str:
  return 'strong' if value >= strong else 'useful' if value >= useful else 'weak'


def _reaches(probes: Probes, score: Score) -> str:
  if probes.metric == 'mae':
    correlation = '' if score.order is None else f', correlation {score.order:.2f}'
    return f'leaves an error of {measured(probes, score)}{correlation}'
  return f'reaches {measured(probes, score)}'


def _compare(probes: Probes, best: Score, name: str) -> str:
  together, sign = probes.together, 1 if probes.higher_is_better else -1
  assert together is not None
  if level(probes, together) == 'nothing':
    return 'no better than guessing either.'
  ahead = sign * (together.value - best.value)
  inside = together.low <= best.value <= together.high
  if inside:
    return f'not clearly different from {name} alone.'
  if ahead > 0:
    return f'better than {name} alone, the strongest.'
  return f'worse than {name} alone, so the others add more noise than this simple model can sort out.'
