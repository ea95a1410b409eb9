r"""Records what MMSA's own metrics answer, for `tests/test_metrics.py` to compare with.

  pip download MMSA --no-deps && python -m zipfile -e MMSA-*.whl FOLDER
  python benchmarks/mmsa_metrics.py --mmsa=FOLDER --out=tests/golden/mmsa_metrics.json

MMSA's `metricsTop.py` runs unchanged, alone: it needs NumPy and scikit-learn only, and the few methods that it calls on
tensors are given by a small stand-in. Every case holds the float32 prediction and label and, by data set, either MMSA's
metrics (rounded to four digits by MMSA, NaN included) or the name of the error that it raises.
"""

import argparse
import hashlib
import importlib.metadata
import importlib.util
import itertools
import json
import pathlib
import warnings

import numpy as np
import sklearn

_SENTIMENT = ('MOSI', 'MOSEI')
_SIMS = ('SIMS',)


class Tensor:
  """What MMSA's metrics ask of a torch tensor."""

  def __init__(self, values):
    self.values = values

  def view(self, *shape):
    """The same values in another shape."""
    return Tensor(self.values.reshape(shape))

  def cpu(self):
    """Itself."""
    return self

  def detach(self):
    """Itself."""
    return self

  def numpy(self):
    """The values, as an array that MMSA may change."""
    return self.values.copy()


def pairs(predictions, labels) -> tuple:
  """Every prediction with every label."""
  return tuple(zip(*itertools.product(predictions, labels), strict=True))


def around(values) -> np.ndarray:
  """Each value in float32 between the floats next to it."""
  values = np.asarray(values, np.float32)
  return np.stack([np.nextafter(values, np.float32(s)) for s in (-np.inf, np.inf)] + [values], axis=1).ravel()


def regression_cases(rng, limit: float, grid):
  """(name, prediction, label) that both families share; labels come from `grid`."""

  def noisy(n, scale=0.5):
    label = rng.choice(grid, n)
    return label + scale * limit * rng.normal(size=n), label

  yield 'random, n=700', *noisy(700)
  yield 'random, n=50', limit / 2 * rng.normal(size=50), limit / 2 * rng.normal(size=50)
  yield 'random, n=7', *noisy(7)
  yield 'two samples', [0.3, -0.2], [0.5, 0.1]
  yield 'one sample', [0.3], [0.5]
  prediction, label = noisy(120)
  label[rng.random(120) < 0.8] = 0.0
  yield 'most labels zero', prediction, label
  yield 'all labels zero', [0.5, -0.5, 0.0, 1.0], [0.0] * 4
  yield 'zeros of both signs', [0, -0.0, 0, 0, -0.0, -0.0, 0.2, -0.2], [0, 0, -0.0, 0.4, 0.4, -0.4, 0, 0]
  yield 'beyond the range', 2 * limit * rng.normal(size=60), 2 * limit * rng.normal(size=60)
  yield 'beyond the range, far', [1e3, -1e3, 1e3, 40.0, -40.0, 2.0], [limit, limit, 1e3, -limit, -50.0, 0.0]
  for constant in (0.0, 0.1, -0.7, 0.3, 2.5):
    yield f'constant prediction {constant}', np.full(50, constant), noisy(50)[1]
  yield 'nearly constant prediction', np.where(rng.random(50) < 0.5, *around([0.1])[:2]), noisy(50)[1]
  yield 'constant label 0.4', noisy(50)[0], np.full(50, 0.4)
  yield 'constant prediction and label', [0.1] * 5, [0.4] * 5
  prediction, label = noisy(40)
  yield 'all labels positive', prediction, np.abs(label) + 0.05
  yield 'all labels negative', prediction, -np.abs(label) - 0.05
  yield 'all predictions positive', np.abs(prediction) + 0.05, label
  yield 'all predictions negative', -np.abs(prediction) - 0.05, label
  yield 'few negative labels', np.where(np.arange(40) % 3, -1, 1) * 0.3, np.where(np.arange(40) % 8, 1, -1) * 0.4
  yield 'perfect', label, label
  yield 'reversed', -label, label
  yield 'far from zero', 1e4 + rng.normal(size=50), noisy(50)[1]
  yield 'signs of tiny values', *pairs([-1e-30, -1e-44, 0.0, 1e-44, 1e-30], [-1e-30, -1e-44, 0.0, 1e-44, 1e-30, 0.4])
  yield 'sum beyond float32', [3e38, -3e38, 3e38, 0.2], [0.5, 0.5, -0.5, 0.2]
  yield 'infinite predictions', [np.inf, -np.inf, np.inf, 0.0], [0.5, 0.5, -0.5, 0.2]
  yield 'only infinite predictions', [np.inf] * 4, [0.5, 0.5, -0.5, 0.2]
  yield 'NaN prediction', [np.nan, 0.5, -0.5, 0.0], [0.5, 0.5, -0.5, 0.2]


def sentiment_cases(rng):
  """Cases of MOSI and MOSEI; here halves and integers are the edges."""
  thirds = np.r_[np.arange(-9, 10) / 3, 0.0, 0.0]
  yield from regression_cases(rng, 3.0, thirds)
  halves = np.arange(-7, 8) / 2
  yield 'every half with every half', *pairs(halves, halves)
  yield 'halves with the integers', *pairs(halves, np.arange(-3, 4))
  yield 'halves, quarters and zeros', rng.integers(-14, 15, 90) / 4, rng.integers(-7, 8, 90) / 2
  edges = around([-2.5, -1.5, -0.5, 0.0, 0.5, 1.5, 2.5])
  yield 'beside the edges', *pairs(edges, edges)


def sims_cases(rng):
  """Cases of CH-SIMS; -0.7, -0.1, 0, 0.1 and 0.7 are the edges."""
  fifths = np.arange(-5, 6) / 5
  yield from regression_cases(rng, 1.0, fifths)
  edges = np.array([-1.0, -0.7, -0.1, 0.0, 0.1, 0.7, 1.0])
  yield 'every edge with every edge', *pairs(edges, edges)
  yield 'edges with the middles', *pairs(edges, [-0.9, -0.4, -0.05, 0.05, 0.4, 0.9])
  yield 'beside the edges', *pairs(around(edges), around(edges))
  yield 'edges and tenths', rng.integers(-12, 13, 90) / 10, rng.choice(edges, 90)


def classification_cases(rng):
  """Scores of negative, neutral and positive with the class."""

  def noisy(n, labels=(0, 1, 2)):
    label = rng.choice(labels, n)
    return rng.normal(size=(n, 3)) + 1.5 * np.eye(3)[label], label

  yield 'random, n=300', *noisy(300)
  yield 'random, n=7', *noisy(7, (0, 2))
  for k, name in enumerate(('negative', 'neutral', 'positive')):
    if name != 'neutral':
      yield f'all labels {name}', *noisy(40, (k,))
    prediction, label = noisy(40)
    prediction[:, k] = -np.inf
    yield f'never decided for {name}', prediction, label
    yield f'no label {name}', *noisy(40, tuple({0, 1, 2} - {k}))
  yield 'few negative labels', np.eye(3)[np.where(np.arange(40) % 3, 0, 2)], np.where(np.arange(40) % 8, 2, 0)
  yield 'all labels neutral', np.eye(3)[[1, 1, 1, 2]], [1] * 4
  yield 'ties', rng.integers(0, 2, (60, 3)), rng.integers(0, 3, 60)
  yield 'one sample', [[0.1, 0.2, 0.4]], [2]
  yield 'NaN score', [[0.5, np.nan, 0.0], [0.5, 0.2, 0.0]], [1, 0]


def load(folder: pathlib.Path):
  """MMSA's class of metrics, from its file alone: importing the package would need torch."""
  spec = importlib.util.spec_from_file_location('mmsa_metrics_top', folder / 'MMSA/utils/metricsTop.py')
  assert spec is not None
  assert spec.loader is not None
  module = importlib.util.module_from_spec(spec)
  spec.loader.exec_module(module)
  return module.MetricsTop


def answer(metric, prediction, label):
  """MMSA's metrics as they are, or the name of the error."""
  try:
    with warnings.catch_warnings(), np.errstate(all='ignore'):
      warnings.simplefilter('ignore')
      return {name: float(value) for name, value in metric(Tensor(prediction), Tensor(label)).items()}
  except (IndexError, ValueError) as error:
    return type(error).__name__


def plain(values) -> list:
  """Nested lists of the shortest numbers that give the same array again, bit by bit."""
  if values.ndim > 1:
    return [plain(v) for v in values]
  short = [float(str(v)) if values.dtype == np.float32 else int(v) for v in values]
  assert np.asarray(short, values.dtype).tobytes() == values.tobytes()
  return short


def main() -> None:
  """Builds the cases, asks MMSA and writes the file."""
  parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
  parser.add_argument('--mmsa', type=pathlib.Path, required=True, help='folder of the unpacked wheel')
  parser.add_argument('--out', type=pathlib.Path, required=True)
  parser.add_argument('--seed', type=int, default=0)
  arguments = parser.parse_args()
  metrics_top = load(arguments.mmsa)
  (package,) = importlib.metadata.distributions(name='MMSA', path=[str(arguments.mmsa)])
  about = {
    'MMSA': package.version,
    'metricsTop.py, SHA-256': hashlib.sha256((arguments.mmsa / 'MMSA/utils/metricsTop.py').read_bytes()).hexdigest(),
    'numpy': np.__version__,
    'scikit-learn': sklearn.__version__,
    'seed': arguments.seed,
  }
  lines = []
  groups = [
    ('regression', _SENTIMENT, sentiment_cases),
    ('regression', _SIMS, sims_cases),
    ('classification', _SENTIMENT + _SIMS, classification_cases),
  ]
  for k, (task, datasets, cases) in enumerate(groups):
    for name, prediction, label in cases(np.random.default_rng([arguments.seed, k])):
      prediction = np.asarray(prediction, np.float32)
      label = np.asarray(label, np.float32 if task == 'regression' else np.int64)
      answers = {d: answer(metrics_top(task).getMetics(d), prediction, label) for d in datasets}
      case = {'task': task, 'name': name, 'mmsa': answers, 'prediction': plain(prediction), 'label': plain(label)}
      lines.append(json.dumps(case))
  arguments.out.parent.mkdir(parents=True, exist_ok=True)
  content = ',\n'.join(lines)
  arguments.out.write_text(f'{{"about": {json.dumps(about)},\n"cases": [\n{content}\n]}}\n')
  print(f'{arguments.out}: {len(lines)} cases, {arguments.out.stat().st_size / 1e3:.0f} kB')


if __name__ == '__main__':
  main()
