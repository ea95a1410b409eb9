r"""How faithful can contributions be that see no label? DREAM's, beside what its own beliefs would allow.

  python benchmarks/contribution_limits.py runs/mosi

reads a finished `--mode=train` workdir with a classifier and compares, for its complete test samples, contributions
with the exact Shapley values of the trained model (`dream_jax/evaluation/modality_values.py`): over all samples, where
the model is right and where it is wrong. Two more lines say what limits them. "Exact game, expected": every
prediction of the exact game is made, and only the true label is replaced by what the model believes of it. "The same,
if beliefs were true": how well that guess agrees with the values for labels drawn from the belief. The belief is the
model's prediction with a temperature fitted on these very test samples: this asks for a bound and is no method.

Prints rank correlations over samples and modalities, +- half the 95 % interval over seeds, samples fixed.
"""

import argparse
import sys

import numpy as np
from scipy import special

from dream_jax.config.recipe import recipe_from_config
from dream_jax.errors import UserError
from dream_jax.evaluation import calibration, metrics
from dream_jax.evaluation.evaluate import ConstantPredictor
from dream_jax.evaluation.intervals import summarise
from dream_jax.evaluation.modality_values import play
from dream_jax.experiments import workbench
from dream_jax.models.registry import find_method
from dream_jax.workdir import run_folders
from dream_jax.workdir.checkpoints import selected
from dream_jax.workdir.config_guard import read_config

_DRAWS = 20


def main(arguments: list[str]) -> int:
  """Reads, computes and prints."""
  parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
  parser.add_argument('workdir')
  try:
    for name, values in limits(parser.parse_args(arguments).workdir).items():
      print(f'{name:42s}{_summary(values)}')
  except UserError as error:
    print(f'contribution_limits: {error}', file=sys.stderr)
    return 2
  return 0


def _summary(values: list[float]) -> str:
  found = summarise(values)
  if found['ci95'] is None:
    return f'{np.mean(values):6.3f}'
  return f'{found["mean"]:6.3f} +- {found["ci95"][1] - found["mean"]:.3f}'


def limits(workdir: str) -> dict[str, list[float]]:
  """What is printed, a value a seed.

  Raises:
    UserError: the workdir holds no finished training of DREAM, or it is no classifier of one label a sample.
  """
  recipe = recipe_from_config(read_config(workdir))
  prepared = workbench.load_prepared(recipe)
  spec = prepared.spec
  if spec.task not in ('binary', 'multiclass'):
    raise UserError(f'{workdir} has a task of kind {spec.task!r}; expected a classifier of one label a sample')
  bench = workbench.Workbench(recipe, prepared)
  folder, key = run_folders.find(workdir, 'dream')
  programs = bench.trainer(find_method('dream')).programs
  predictor, params = programs.predictor, selected(folder, 'dream', key, programs.abstract_state.params)
  outputs = predictor.coalitions(params, bench.feed.inputs, 'test', seed=recipe.seed)
  label = prepared.splits['test'].label.astype(int)
  nothing = ConstantPredictor(prepared, 1).prediction
  # The game for every label that a sample might have.
  classes = range(max(2, spec.num_outputs))
  games = [play(spec, outputs['prediction'], np.full_like(label, k), nothing) for k in classes]
  probabilities, worths = (np.stack(parts, axis=-1) for parts in zip(*games, strict=True))
  rng = np.random.default_rng(recipe.seed)
  result: dict[str, list[float]] = {}
  for whole, probability, worth, contributions in zip(
    outputs['prediction'][:, :, -1],
    probabilities[:, :, -1],
    worths,
    outputs['contributions'][:, :, -1],
    strict=True,
  ):
    temperature = calibration.fit(spec, whole, label).temperature
    belief = special.softmax(np.log(np.maximum(probability, 1e-30)) / temperature, axis=-1)
    expected = (worth * belief[:, None]).sum(-1)
    true = of_labels(worth, label)
    right = belief.argmax(-1) == label
    drawn = [(belief.cumsum(-1) > rng.uniform(size=(len(belief), 1))).argmax(-1) for _ in range(_DRAWS)]
    for name, value in (
      ('accuracy', right.mean()),
      ('contributions', correlation(contributions, true)),
      ('contributions where the model is right', correlation(contributions[right], true[right])),
      ('contributions where it is wrong', correlation(contributions[~right], true[~right])),
      ('exact game, expected', correlation(expected, true)),
      ('the same, if beliefs were true', np.mean([correlation(expected, of_labels(worth, y)) for y in drawn])),
    ):
      result.setdefault(name, []).append(float(value))
  return result


def of_labels(worth: np.ndarray, label: np.ndarray) -> np.ndarray:
  """Values [n, M] of labels [n], from those of all K labels [n, M, K]."""
  return np.take_along_axis(worth, label[:, None, None], axis=-1)[..., 0]


def correlation(estimate: np.ndarray, true: np.ndarray) -> float:
  """Over samples and modalities; NaN where there are none."""
  return metrics.spearman(estimate.ravel(), true.ravel()) if len(true) > 1 else float('nan')


if __name__ == '__main__':
  sys.exit(main(sys.argv[1:]))
