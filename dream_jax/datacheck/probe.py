"""How well each modality alone predicts the target: a linear model on pooled features, scored on validation.

Ridge regression towards the label (+-1 for classes), because it has a closed form, also for the leave-one-out errors
inside the training split by which its strength is chosen. So the validation split is read for the scores alone, and the
test split is not an argument of anything here.

Letters: n samples, P pooled features, C outputs.
"""

import dataclasses
from collections.abc import Mapping

import numpy as np
from scipy import stats

from dream_jax.data.datasets import Split
from dream_jax.datacheck import content, pooling
from dream_jax.evaluation import intervals, metrics
from dream_jax.spec import DatasetSpec

MIN_TRAIN, MIN_VALIDATION = 20, 10
MAX_TRAIN = 20_000
_STRENGTHS = 10.0 ** np.arange(3, -5, -1)  # In units of the features' mean variance, the strongest first.
_SHUFFLES = 999
_Z95 = 1.959964
_LARGEST = float(np.finfo(np.float32).max)


@dataclasses.dataclass(frozen=True)
class Score:
  """What a probe reaches on the validation split.

  Attributes:
    value: primary metric of the task; see `Probes.metric`.
    low: lower end of its 95 % interval over validation samples: Wilson's for accuracy, Student's t otherwise.
    high: upper end.
    order: how well predictions order the samples, which a lopsided label does not hide. Regression: correlation with
      the label, 0 is guessing. Otherwise the probability that a sample with a class scores higher for it than one
      without, averaged over classes, 0.5 is guessing. None where the validation labels do not vary.
    order_low: lower end of a correlation's 95 % interval (Fisher); None otherwise.
    order_high: upper end.
    p: how often shuffled labels are ordered as well, at least 0.001; 1 where `order` is None.
  """

  value: float
  low: float
  high: float
  order: float | None
  order_low: float | None
  order_high: float | None
  p: float


@dataclasses.dataclass(frozen=True)
class Probes:
  """The probes of a data set.

  Attributes:
    skipped: why there are none; '' when there are.
    metric: name of the primary metric.
    higher_is_better: which way it points.
    num_train: training samples used.
    num_validation: validation samples used.
    num_left_out: training samples left out to stay within seconds.
    perfect: what faultless predictions score; F1 is 0 for a sample without any label, whatever is predicted.
    baseline: the best answer that is the same for everybody: the majority class, the median, the most frequent labels.
    modalities: by name, each modality alone.
    together: their predictions, weighed by another ridge.
  """

  skipped: str
  metric: str
  higher_is_better: bool
  num_train: int = 0
  num_validation: int = 0
  num_left_out: int = 0
  perfect: float = 1.0
  baseline: Score | None = None
  modalities: Mapping[str, Score] = dataclasses.field(default_factory=dict)
  together: Score | None = None


def probe(spec: DatasetSpec, train: Split, validation: Split, *, max_train: int = MAX_TRAIN) -> Probes:
  """Probes of every modality and of all together.

  Args:
    spec: the data set.
    train: training split; labels usable.
    validation: validation split; labels usable.
    max_train: more training samples than these are left out, drawn with a fixed seed.
  """
  metric, higher = metrics.primary_metric(spec)
  if len(train) < MIN_TRAIN or len(validation) < MIN_VALIDATION:
    return Probes(
      f'it needs at least {MIN_TRAIN} training and {MIN_VALIDATION} validation samples with a usable label; there are '
      f'{len(train)} and {len(validation)}',
      metric,
      higher,
    )
  for name, split in (('training', train), ('validation', validation)):
    if len(split) and (split.label == split.label[0]).all():
      one = _only_label(spec, split.label[0])
      return Probes(f'their worth cannot be told: {name} holds {one}', metric, higher)
  left_out = max(0, len(train) - max_train)
  if left_out:
    train = content.select(train, np.sort(np.random.default_rng(0).choice(len(train), max_train, replace=False)))
  baseline, _ = fit_predict(spec, np.zeros((len(train), 1)), train.label, np.zeros((len(validation), 1)))
  alone, held_out = {}, []
  for m in spec.modalities:
    features, new = pooling.pooled(m, train, validation)
    alone[m.name], own = fit_predict(spec, features, train.label, new)
    held_out.append(own)
  # Stacking (Wolpert 1992): weighed by what each modality says of samples that it was not fitted on.
  stacked, new = np.concatenate(held_out, axis=1), np.concatenate(list(alone.values()), axis=1)
  together, _ = fit_predict(spec, stacked, train.label, new)
  truth = validation.label
  return Probes(
    '',
    metric,
    higher,
    len(train),
    len(validation),
    left_out,
    perfect=float(metrics.sample_scores(spec, _targets(spec, truth), truth).mean()),
    baseline=_score(spec, baseline, truth),
    modalities={name: _score(spec, prediction, truth) for name, prediction in alone.items()},
    together=_score(spec, together, truth),
  )


def _only_label(spec: DatasetSpec, label: np.ndarray) -> str:
  """What a split holds whose labels are all the same."""
  if spec.task == 'regression':
    return f'one label, {float(label):g}'
  if spec.task == 'multilabel':
    return 'one combination of labels' if label.any() else 'no label at all'
  return f'one class, {spec.class_names[label] if label < len(spec.class_names) else int(label)}'


def fit_predict(
  spec: DatasetSpec, train: np.ndarray, label: np.ndarray, validation: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
  """Predictions of a ridge fitted on `train` [n, P], as `metrics.compute` takes them.

  Args:
    spec: the data set.
    train: standardised features.
    label: [n] or [n, C] of the training samples.
    validation: features of the samples to predict.

  Returns:
    Predictions [n, C] for `validation`, and for each sample of `train` those of a ridge fitted on the others.
  """
  target, x = _targets(spec, label), train.astype(np.float64)
  x_mean, y_mean = x.mean(0), target.mean(0)
  x, y = x - x_mean, target - y_mean
  variances, axes = np.linalg.eigh(x.T @ x)
  variances = variances.clip(0.0)
  turned = x @ axes
  covariances, squares = turned.T @ y, turned**2
  best = None
  for strength in _STRENGTHS * max(float(variances.mean()), 1e-12):
    shrunk = covariances / (variances + strength)[:, None]
    # What the ridge would have predicted for each sample without that sample (Allen 1974), the intercept included.
    leverage = 1 / len(x) + squares @ (1 / (variances + strength))
    held_out = target - (y - turned @ shrunk) / (1 - leverage).clip(1e-9)[:, None]
    error = float(((target - held_out) ** 2).mean())
    if best is None or error < best[0]:  # Strictly: of equals, the strongest.
      best = error, shrunk, held_out
  assert best is not None
  _, shrunk, held_out = best
  shift = _shift(spec, held_out, target)
  return (validation - x_mean) @ (axes @ shrunk) + y_mean + shift, held_out + shift


def _targets(spec: DatasetSpec, label: np.ndarray) -> np.ndarray:
  """What the ridge aims at, [n, C] float64."""
  if spec.task == 'multiclass':
    return np.eye(spec.num_outputs)[label]
  label = label.reshape(len(label), -1).astype(np.float64)
  return label if spec.task == 'regression' else 2 * label - 1


def _shift(spec: DatasetSpec, held_out: np.ndarray, target: np.ndarray) -> float:
  """A constant that suits the metric better than the mean, chosen on leave-one-out predictions of training samples.

  The absolute error is least around the median; F1 wants rare labels to be predicted well below even odds.
  """
  if spec.task == 'regression':
    return float(np.median(target - held_out))
  if spec.task != 'multilabel':
    return 0.0
  truth = (target > 0).astype(np.float32)
  candidates = np.linspace(0.0, 1.0, 41)
  scores = [metrics.sample_scores(spec, held_out + c, truth).mean() for c in candidates]
  return float(candidates[int(np.argmax(scores))])


def _score(spec: DatasetSpec, prediction: np.ndarray, truth: np.ndarray) -> Score:
  prediction = prediction.clip(-_LARGEST, _LARGEST)  # Labels of that size are predicted beyond it.
  scores = metrics.sample_scores(spec, prediction, truth)
  if spec.task in ('binary', 'multiclass'):
    # Wilson's interval is not empty where all or none are right, as the normal one would be.
    low, high = stats.binomtest(int(scores.sum()), len(scores)).proportion_ci(method='wilson')
  else:
    low, high = intervals.summarise(scores)['ci95']
    low, high = max(low, 0.0), high if spec.task == 'regression' else min(high, 1.0)
  order, p = _order(prediction, _targets(spec, truth), correlation=spec.task == 'regression')
  order_low = order_high = None
  if spec.task == 'regression' and order is not None:
    centre, half = np.arctanh(np.clip(order, -1 + 1e-12, 1 - 1e-12)), _Z95 / np.sqrt(len(truth) - 3)
    order_low, order_high = float(np.tanh(centre - half)), float(np.tanh(centre + half))
  return Score(float(scores.mean()), float(low), float(high), order, order_low, order_high, p)


def _order(prediction: np.ndarray, target: np.ndarray, *, correlation: bool) -> tuple[float | None, float]:
  """(`Score.order`, `Score.p`) of predictions [n, C] for targets [n, C].

  Both kinds are a sum over samples of (something of the prediction) times (something of the label), so a shuffle is
  one product.
  """
  target = target if correlation else (target > 0).astype(np.float64)
  varies = np.ptp(target, axis=0) > 0
  if not varies.any():
    return None, 1.0
  prediction, target = prediction[:, varies], target[:, varies]
  if correlation:
    left, right = _unit(prediction), _unit(target)
  else:
    # The Mann-Whitney form of the area under the curve, from ranks.
    positives = target.sum(0)
    left = np.stack([metrics.ranks(column) for column in prediction.T], axis=1)
    left = (left - (positives + 1) / 2) / (len(target) - positives)
    right = target / positives / target.shape[1]
  observed = float((left * right).sum())
  rng = np.random.default_rng(0)
  shuffled = [float((left * right[rng.permutation(len(right))]).sum()) for _ in range(_SHUFFLES)]
  as_good = sum(value >= observed - 1e-12 for value in shuffled)
  return observed, (1 + as_good) / (1 + _SHUFFLES)


def _unit(values: np.ndarray) -> np.ndarray:
  """Centred, of length one; zeros for a constant, whose correlation is 0 by `metrics`' convention."""
  if np.ptp(values) == 0:
    return np.zeros_like(values)
  centred = values - values.mean(0)
  return centred / np.linalg.norm(centred)
