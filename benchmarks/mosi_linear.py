r"""Logistic regression on the utterance features of CMU-MOSI: what the single-modality rows of a run should reproduce.

  python benchmarks/mosi_linear.py --manual_dir=FOLDER [--split=clean|bclstm|official]

For each modality and all of them together: standardised by the training split, L2 strength selected by validation
accuracy, accuracy on the test split. Needs scikit-learn (`pip install '.[demo]'`).
"""

import argparse

import numpy as np
from sklearn.linear_model import LogisticRegression

from dream_jax.data.datasets import load_dataset
from dream_jax.data.prepare import prepare
from dream_jax.missingness.missing import Missing

_STRENGTHS = np.logspace(-4, 1, 11)  # C of scikit-learn, the inverse of the L2 strength


def main() -> None:
  """Prints a line for each set of modalities."""
  parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
  parser.add_argument('--manual_dir', required=True)
  parser.add_argument('--split', default='clean', choices=('clean', 'bclstm', 'official'))
  parser.add_argument('--tfds_dir')
  arguments = parser.parse_args()
  dataset = load_dataset(
    f'mosi_utterance/{arguments.split}', tfds_dir=arguments.tfds_dir, manual_dir=arguments.manual_dir
  )
  splits = prepare(dataset, train_missing=Missing(), seed=0).splits
  labels = {name: split.label for name, split in splits.items()}
  share = max(np.bincount(labels['test'])) / len(labels['test'])
  print(f'{"":24s}validation  test   (test majority {share:.3f}, n = {len(labels["test"])})')
  for names in (*((n,) for n in dataset.spec.names), dataset.spec.names):
    x = {name: np.concatenate([split.features[n] for n in names], axis=1) for name, split in splits.items()}
    fits = [LogisticRegression(C=c, max_iter=5000).fit(x['train'], labels['train']) for c in _STRENGTHS]
    best = max(fits, key=lambda fit: fit.score(x['validation'], labels['validation']))
    scores = [best.score(x[name], labels[name]) for name in ('validation', 'test')]
    print(f'{"+".join(names):24s}{scores[0]:.3f}       {scores[1]:.3f}  C = {best.C:.3g}')


if __name__ == '__main__':
  main()
