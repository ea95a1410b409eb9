r"""What DREAM does inside, as pictures: gates against what was truly missing, and how well latents are rebuilt.

  python benchmarks/method_pictures.py runs/digits [--out=docs/pictures]

reads a finished `--mode=train` workdir, predicts its test samples under missingness with all its seeds, prints the
figures behind the pictures and writes `gates.png` and `reconstruction.png`. Contributions by condition and robustness
curves are drawn by the report of every run; they lie in the workdir's `figures/`, and those named below are copied.
"""

import argparse
import shutil
import sys
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
from matplotlib.figure import Figure

from dream_jax.config.recipe import recipe_from_config
from dream_jax.errors import UserError
from dream_jax.experiments import workbench
from dream_jax.missingness.missing import Missing
from dream_jax.models.registry import build, find_method
from dream_jax.workdir import run_folders
from dream_jax.workdir.checkpoints import selected
from dream_jax.workdir.config_guard import read_config

_COPIED = ('contributions_dream-subset-swap', 'robustness_modality-noise')
_FILLS = ('zeros', 'noise', 'swap')
_RATE = 0.5


class Inside(NamedTuple):
  """S seeds, n test samples, M modalities, D latent width."""

  kept: np.ndarray  # [n, M] whether the slot was left
  gates: np.ndarray  # [S, n, M]
  latents: np.ndarray  # [S, n, M, D]
  reconstructions: np.ndarray | None  # [S, n, M, D]


class Run:
  """DREAM of a workdir, all its seeds."""

  def __init__(self, workdir: str):
    """Raises UserError where the workdir holds no finished run of DREAM."""
    recipe = recipe_from_config(read_config(workdir))
    prepared = workbench.load_prepared(recipe)
    self.spec, self._seed = prepared.spec, recipe.seed
    self._size = len(prepared.splits['test'])
    self._inputs = workbench.Workbench(recipe, prepared).feed.inputs
    model = build(find_method('dream'), prepared.spec, recipe.model)
    folder, key = run_folders.find(workdir, 'dream')
    self._params = selected(folder, 'dream', key)
    self._forward = jax.jit(jax.vmap(lambda p, x: model.apply({'params': p}, x, train=False), (0, None)))

  def look(self, missing: Missing) -> Inside:
    """The test samples under a condition."""
    parts: dict[str, Any] = {}
    kept = np.empty((self._size, self.spec.num_modalities), bool)
    for batch, rows in self._inputs.batches('test', missing, self._seed):
      outputs = self._forward(self._params, batch)
      real = rows['weight'] > 0
      index = rows['index'][real]
      kept[index] = rows['kept'][real] >= 0.5
      for name in ('gates', 'latents', 'reconstructions'):
        value = getattr(outputs, name)
        if value is not None:
          value = np.asarray(value)
          place = parts.setdefault(name, np.empty((len(value), self._size, *value.shape[2:]), np.float32))
          place[:, index] = value[:, real]
    return Inside(kept, parts['gates'], parts['latents'], parts.get('reconstructions'))


def draw_gates(run: Run, out: Path) -> None:
  """How much of a slot is replaced, for slots that were left and slots that were removed."""
  figure = Figure(figsize=(3.1 * len(_FILLS), 2.8), layout='constrained')
  panels = figure.subplots(1, len(_FILLS), sharey=True, squeeze=False)[0]
  bins = np.linspace(0, 1, 21)
  for fill, axes in zip(_FILLS, panels, strict=True):
    inside = run.look(Missing('modality', _RATE, fills=(fill,)))
    removed = np.broadcast_to(~inside.kept, inside.gates.shape)
    for there, label, colour in ((~removed, 'left', '#0072B2'), (removed, 'removed', '#D55E00')):
      gates = inside.gates[there]
      print(f'gates, {fill:5s}, {label:7s}: mean {gates.mean():.3f}, above .5 {100 * (gates > 0.5).mean():5.1f} %')
      weight = np.full(len(gates), 100 / len(gates))
      axes.hist(gates, bins, weights=weight, alpha=0.65, label=f'truly {label}', color=colour)
    axes.set_title(fill, loc='left', fontsize=10)
    axes.set_xlabel('gate: share replaced')
    axes.spines[['top', 'right']].set_visible(False)
  panels[0].set_ylabel('slots, %')
  panels[0].legend(frameon=False)
  figure.savefig(out / 'gates.png', dpi=150)


def draw_reconstruction(run: Run, out: Path) -> None:
  """Share of the variance of each latent that is rebuilt when its own slot is missing, and when one more is.

  1 minus squared error over variance around the mean of the test samples; 0 is what that mean would give.
  """
  names, m = run.spec.names, run.spec.num_modalities
  truth = run.look(Missing())
  if truth.reconstructions is None:
    print('reconstruction: this run reconstructs nothing')
    return
  spread = np.square(truth.latents - truth.latents.mean(1, keepdims=True)).sum((1, 3))

  def rebuilt(slot: int, gone: tuple[int, ...], fill: str) -> np.ndarray:
    """[S] of one slot, which is missing itself."""
    inside = run.look(Missing('subset', kept=tuple(n for k, n in enumerate(names) if k not in gone), fills=(fill,)))
    assert inside.reconstructions is not None
    error = np.square(inside.reconstructions[:, :, slot] - truth.latents[:, :, slot]).sum((1, 2))
    return 1 - error / spread[:, slot]

  scores = {}
  for fill in _FILLS:
    scores[f'it is missing: {fill}'] = np.stack([rebuilt(k, (k,), fill) for k in range(m)], axis=1)
  for fill in _FILLS if m > 2 else ():
    both = [[rebuilt(k, (k, other), fill) for other in range(m) if other != k] for k in range(m)]
    scores[f'and another: {fill}'] = np.mean(both, axis=1).T
  figure = Figure(figsize=(7.5, 3.0), layout='constrained')
  axes = figure.subplots()
  width = 0.8 / len(scores)
  for number, (label, score) in enumerate(scores.items()):
    print(f'rebuilt, {label:24s}: ' + ', '.join(f'{n} {v:.3f}' for n, v in zip(names, score.mean(0), strict=True)))
    place = np.arange(m) + (number - (len(scores) - 1) / 2) * width
    spread_of_seeds = score.std(0, ddof=1) if len(score) > 1 else np.zeros(m)
    axes.bar(place, score.mean(0), width, yerr=spread_of_seeds, label=label, error_kw={'linewidth': 0.8})
  axes.axhline(0, color='#222222', linewidth=0.8)
  axes.set_xticks(range(m), names)
  axes.set_ylabel('variance of the latent\nrebuilt from the others')
  axes.spines[['top', 'right']].set_visible(False)
  axes.legend(frameon=False, bbox_to_anchor=(1.01, 1.0), loc='upper left')
  figure.savefig(out / 'reconstruction.png', dpi=150)


def main() -> int:
  """Prints the figures, writes the pictures."""
  parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
  parser.add_argument('workdir')
  parser.add_argument('--out', default='docs/pictures', type=Path)
  arguments = parser.parse_args()
  try:
    run = Run(arguments.workdir)
    arguments.out.mkdir(parents=True, exist_ok=True)
    draw_gates(run, arguments.out)
    draw_reconstruction(run, arguments.out)
    for name in _COPIED:
      source = Path(arguments.workdir) / 'figures' / f'{name}.png'
      if not source.exists():
        raise UserError(f'{source} is missing; run --mode=report with this --workdir, and these protocols, first')
      shutil.copy(source, arguments.out)
  except UserError as error:
    print(f'method_pictures: {error}', file=sys.stderr)
    return 2
  return 0


if __name__ == '__main__':
  sys.exit(main())
