r"""`DreamClassifier` and `DreamRegressor` beside two pipelines of scikit-learn, complete and with one modality missing.

  python benchmarks/estimator.py [--splits=3] [--tasks=wine,digits] [--data=DIR] [--out=FILE.json]

Every method gets the same rows with nothing missing, then answers a quarter of the rows that nobody has seen: as they
are, and without one modality, each in turn. The pipelines read all columns side by side: medians for what is missing,
then logistic (ridge) regression; and gradient boosting, which reads NaN. Accuracy, for `diabetes` R2, in points: mean
and deviation over the splits. Nothing is tuned for any of them. Tasks of DIR are left out where it is absent.
"""

import argparse
import json
import os
import time
from pathlib import Path

import numpy as np
import pandas as pd
from sklearn import datasets
from sklearn.ensemble import HistGradientBoostingClassifier, HistGradientBoostingRegressor
from sklearn.impute import SimpleImputer
from sklearn.linear_model import LogisticRegression, RidgeCV
from sklearn.model_selection import train_test_split
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

import dream_jax

METHODS = ('DREAM', 'imputer + linear', 'gradient boosting')


def tasks(folder: Path) -> dict[str, tuple[pd.DataFrame, np.ndarray, dict[str, list[str]]]]:
  """Name -> (frame, labels, modalities)."""
  found = {}
  wine = datasets.load_wine(as_frame=True)
  chemistry = ['alcohol', 'malic_acid', 'ash', 'alcalinity_of_ash', 'magnesium', 'proline']
  rest = [c for c in wine.data.columns if c not in chemistry]
  found['wine'] = wine.data, wine.target.to_numpy(), {'chemistry': chemistry, 'colour_and_phenols': rest}
  digits = datasets.load_digits(as_frame=True)
  pixels = list(digits.data.columns)
  found['digits'] = digits.data, digits.target.to_numpy(), {'upper': pixels[:32], 'lower': pixels[32:]}
  cancer = datasets.load_breast_cancer(as_frame=True)
  parts = {'mean': 'mean *', 'error': '* error', 'worst': 'worst *'}
  found['breast_cancer'] = (
    cancer.data,
    cancer.target.to_numpy(),
    {name: [c for c in cancer.data.columns if c.startswith(p[:-1]) or c.endswith(p[1:])] for name, p in parts.items()},
  )
  diabetes = datasets.load_diabetes(as_frame=True)
  body = ['age', 'sex', 'bmi', 'bp']
  serum = [c for c in diabetes.data.columns if c not in body]
  found['diabetes'] = diabetes.data, diabetes.target.to_numpy(), {'body': body, 'serum': serum}
  for name in ('prokaryotic', 'handwritten'):
    if (folder / name / 'data.npz').exists():
      with np.load(folder / name / 'data.npz') as data:
        views = {k: data[k] for k in data.files if data[k].ndim == 2}
        columns = {f'{view}_{i}': x[:, i] for view, x in views.items() for i in range(x.shape[1])}
        groups = {view: [f'{view}_{i}' for i in range(x.shape[1])] for view, x in views.items()}
        found[name] = pd.DataFrame(columns), data['label'], groups
  return found


def models(regression: bool, modalities: dict[str, list[str]]) -> dict[str, object]:
  """Name -> untrained model."""
  linear = RidgeCV(np.logspace(-3, 3, 13)) if regression else LogisticRegression(max_iter=2000)
  boosting = HistGradientBoostingRegressor if regression else HistGradientBoostingClassifier
  dream = dream_jax.DreamRegressor if regression else dream_jax.DreamClassifier
  impute = SimpleImputer(strategy='median', keep_empty_features=True)
  made = (dream(modalities, verbose=False), make_pipeline(impute, StandardScaler(), linear), boosting(random_state=0))
  return dict(zip(METHODS, made, strict=True))


def run(task, split: int) -> dict[str, dict[str, float]]:
  """Method -> score complete, score without one modality (mean over which), seconds of fitting."""
  frame, label, modalities = task
  regression = label.dtype.kind == 'f'
  parts = train_test_split(frame, label, test_size=0.25, random_state=split, stratify=None if regression else label)
  train, test, y, truth = parts
  found = {}
  for name, model in models(regression, modalities).items():
    start = time.perf_counter()
    model.fit(train, y)
    seconds = time.perf_counter() - start
    without = []
    for columns in modalities.values():
      damaged = test.astype(float)
      damaged[columns] = np.nan
      without.append(model.score(damaged, truth))
    found[name] = {'complete': model.score(test, truth), 'without': float(np.mean(without)), 'seconds': seconds}
  return found


def table(results: dict[str, dict[str, dict[str, dict[str, float]]]]) -> str:
  """Markdown of what has been run."""
  lines = ['| task | splits | ' + ' | '.join(f'{m}, {c}' for c in ('complete', 'one missing') for m in METHODS) + ' |']
  lines.append('|' + '---|' * 8)
  for task, splits in results.items():
    cells = []
    for condition in ('complete', 'without'):
      for method in METHODS:
        values = 100 * np.array([found[method][condition] for found in splits.values()])
        cells.append(f'{values.mean():.1f} ± {values.std(ddof=1) if len(values) > 1 else 0:.1f}')
    lines.append(f'| {task} | {len(splits)} | ' + ' | '.join(cells) + ' |')
  return '\n'.join(lines)


def main() -> None:
  """Runs split by split, so that what is done after a while is even."""
  parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
  parser.add_argument('--splits', type=int, default=3)
  parser.add_argument('--tasks', default='')
  parser.add_argument('--data', default=os.environ.get('DREAM_SHARED_DATA', '../shared/data') + '/suite')
  parser.add_argument('--out', default='')
  arguments = parser.parse_args()
  known = tasks(Path(arguments.data))
  chosen = [name for name in arguments.tasks.split(',') if name] or list(known)
  results: dict = {}
  for split in range(arguments.splits):
    for name in chosen:
      results.setdefault(name, {})[str(split)] = found = run(known[name], split)
      said = '; '.join(f'{m} {100 * v["complete"]:.1f} / {100 * v["without"]:.1f}' for m, v in found.items())
      print(f'{name}, split {split}: {said}', flush=True)
      if arguments.out:
        Path(arguments.out).write_text(json.dumps(results, indent=1))
  print(table(results))


if __name__ == '__main__':
  main()
