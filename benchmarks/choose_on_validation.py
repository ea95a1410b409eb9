r"""Variants of methods compared without reading the test split: how settings are chosen here.

  python benchmarks/choose_on_validation.py --config=configs/ablation.py [--config.FIELD=VALUE ...] [--draws=3]
      [--fold=K] [--samples=N] [--by-condition] dream 'dream[model.sharpness=2.0]' concat+dropout

trains each with all seeds of the config, selects as always, and evaluates on the validation samples, under protocols of
the config and with draws of missingness that neither training nor selection saw. What was selected on these samples is
a little too good on them, for every variant alike. `--fold=K`, 0 to 4, is for data whose validation split is small:
training and validation samples are mixed and divided anew, a fifth to compare on and a fifth to select on; what shares
a video stays together. `--samples=N` trains on so many of a fold and selects on a third as many. `--by-condition`
prints a column for each condition of a protocol: which modality is foreign.

Prints the mean over seeds and the difference from the first with twice its standard error over seeds, samples fixed.
"""

import argparse
import os
import sys
import tempfile
from contextlib import redirect_stdout

import numpy as np

from dream_jax.cli import flags
from dream_jax.errors import UserError
from dream_jax.machine import cores


def main(arguments: list[str]) -> int:
  """Trains and prints a line a variant."""
  parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
  parser.add_argument('methods', nargs='+')
  parser.add_argument('--draws', type=int, default=3, help='draws of missingness that are averaged')
  parser.add_argument('--fold', type=int, choices=range(5))
  parser.add_argument('--samples', type=int, help='training samples of a fold; all by default')
  parser.add_argument('--by-condition', action='store_true', help='no means over the conditions of a protocol')
  options, rest = parser.parse_known_args(arguments)
  try:
    compare(flags.parse([sys.argv[0], *rest]).config, options)
  except UserError as error:
    print(f'choose_on_validation: {error}', file=sys.stderr)
    return 2
  return 0


def compare(config, options) -> None:
  """Trains and prints."""
  cores.split_for(config)
  from dream_jax.config.recipe import recipe_from_config
  from dream_jax.data.folds import fewer, refolded
  from dream_jax.data.prepare import prepare
  from dream_jax.evaluation.evaluate import evaluate_method
  from dream_jax.evaluation.metrics import primary_metric
  from dream_jax.experiments import (
    one_run,
    workbench,
  )  # JAX counts the cores when it is imported, which is why it waits.
  from dream_jax.missingness.protocols import conditions
  from dream_jax.models.registry import find_method

  recipe = recipe_from_config(config)
  methods = [find_method(name) for name in options.methods]
  for method in methods:
    if method.module is None or method.separate:
      raise UserError(f'{method.name} is no model of all modalities; this compares trained models')
  if options.samples and options.fold is None:
    raise UserError('--samples takes some samples of a fold; expected --fold=K, 0 to 4, too')
  if options.fold is None:
    prepared, split = workbench.load_prepared(recipe), 'validation'
  else:
    dataset = refolded(workbench.load_raw(recipe), options.fold)
    if options.samples:
      dataset = fewer(dataset, options.samples, options.fold)
    prepared = prepare(dataset, train_missing=recipe.train_missing, seed=recipe.seed)
    split = 'test'
  protocols = tuple(dict.fromkeys(('complete', *recipe.protocols)))
  bench, metric = workbench.Workbench(recipe, prepared), primary_metric(prepared.spec)[0]
  print(f'{metric}, {len(prepared.splits[split])} samples, {recipe.num_seeds} seeds: mean, difference from the first')
  width = max(map(len, options.methods))
  columns = {protocol: (protocol, slice(None)) for protocol in protocols}
  if options.by_condition:
    columns = {
      f'{protocol} {condition.name}': (protocol, slice(i, i + 1))
      for protocol in protocols
      for i, condition in enumerate(conditions(protocol, prepared.spec))
    }
  print(' ' * width + ''.join(f' {title:>25s}' for title in columns), flush=True)
  first: dict[str, np.ndarray] = {}
  for name, method in zip(options.methods, methods, strict=True):
    trainer = bench.trainer(method)
    with tempfile.TemporaryDirectory() as folder, open(os.devnull, 'w') as nowhere, redirect_stdout(nowhere):
      params = trainer.run(folder).best.params
    scores: dict[str, list[np.ndarray]] = {}
    for draw in range(options.draws):
      reading = {**one_run.reading(method, recipe), 'seed': recipe.seed + 1000 + draw}
      row = evaluate_method(
        method, trainer.programs.predictor, params, bench.feed.inputs, protocols, split=split, **reading
      )[0]
      for protocol, entry in row.protocols.items():
        scores.setdefault(protocol, []).append(100 * np.asarray(entry['metrics'][metric]))  # [conditions, S]
    line = name.ljust(width)
    for title, (protocol, part) in columns.items():
      score = np.mean(scores[protocol], 0)[part].mean(0)
      difference = score - first.setdefault(title, score)
      error = 2 * difference.std(ddof=1) / len(score) ** 0.5 if len(score) > 1 else float('nan')
      line += f' {score.mean():11.2f} {difference.mean():+6.2f} ± {error:4.2f}'
    print(line, flush=True)


if __name__ == '__main__':
  sys.exit(main(sys.argv[1:]))
