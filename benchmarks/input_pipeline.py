r"""Does the input pipeline keep up? Examples per second of the pipeline, of the training step, and of both together.

  python benchmarks/input_pipeline.py [--method=dream] [--seeds=5] [--calls=12] [--shapes=mosi,mosei,mosei_unaligned]

Generated data in the shapes of MMSA's files, sizes and missingness of configs/mosi.py and configs/mosei.py. One example
is one sample of one seed. tf.data makes the batches on the host, as it does for data that do not fit on the device.
"waiting" is the share of a step's time that the loop waits for its next batch while nothing computes; the pipeline
works on the same cores as the step, so "together" is slower than "step" even without waiting.
"""

import argparse
import statistics
import time
from collections.abc import Iterator
from typing import Any

import jax
import numpy as np

from dream_jax.cli.flags import load_config
from dream_jax.config.recipe import Recipe, recipe_from_config
from dream_jax.data.datasets import Dataset, Split, sample_keys
from dream_jax.data.prepare import prepare
from dream_jax.missingness.missing import Missing
from dream_jax.models.registry import find_method
from dream_jax.spec import DatasetSpec, ModalitySpec
from dream_jax.training.feed import Feed
from dream_jax.training.train import Trainer

# Name -> (config, [T, D] of text, audio and vision).
SHAPES = {
  'mosi': ('configs/mosi.py', ((50, 768), (50, 5), (50, 20))),
  'mosi_unaligned': ('configs/mosi.py', ((50, 768), (375, 5), (500, 20))),
  'mosei': ('configs/mosei.py', ((50, 768), (50, 74), (50, 35))),
  'mosei_unaligned': ('configs/mosei.py', ((50, 768), (500, 74), (500, 35))),
}
_SAMPLES = 1000
_SKIPPED = 2  # Calls that fill the pipeline.


def generated(shapes: tuple[tuple[int, int], ...]) -> Dataset:
  """A regression data set of three sequences of random numbers."""
  modalities = tuple(ModalitySpec(n, 'sequence', s) for n, s in zip(('text', 'audio', 'vision'), shapes, strict=True))
  spec = DatasetSpec('generated', modalities, 'regression', 1, 'synthetic', label_range=(-3.0, 3.0))
  rng = np.random.default_rng(0)
  splits = {}
  for name, n in (('train', _SAMPLES), ('validation', 64), ('test', 64)):
    ids = np.array([f'{name}{i}' for i in range(n)])
    features: dict[str, np.ndarray] = {}
    for m in modalities:
      features[m.name] = rng.standard_normal((n, *m.shape), dtype=np.float32)
      features[m.length_name] = rng.integers(m.shape[0] // 4, m.shape[0] + 1, n).astype(np.int32)
    splits[name] = Split(ids, sample_keys(ids), features, rng.uniform(-3, 3, n).astype(np.float32), {})
  return Dataset(spec, splits, {})


def batches(trainer: Trainer) -> Iterator[Any]:
  """What training reads, without end."""
  while True:
    yield from trainer.batches(0)


def measure(name: str, method: str, num_seeds: int, calls: int) -> None:
  """Prints the line of one data set."""
  config_file, shapes = SHAPES[name]
  config = load_config(config_file)
  with config.unlocked():
    config.num_seeds = num_seeds
    config.train.data_path = 'host'
  recipe: Recipe = recipe_from_config(config)
  prepared = prepare(generated(shapes), train_missing=Missing(), seed=0)
  trainer = Trainer(find_method(method), recipe, Feed(recipe, prepared))
  per_call = trainer.schedule.per_call
  examples = per_call * num_seeds * recipe.train.batch_size

  source = batches(trainer)
  alone = _medians(lambda: next(source), calls)
  state = trainer.first_state()
  batch = next(source)
  source = None  # Its threads stop.

  def step(batch):
    nonlocal state
    state, terms = trainer.advance(state, batch)
    jax.block_until_ready(terms)

  computing = _medians(lambda: step(batch), calls)
  source = batches(trainer)
  waits, totals = [], []
  for _ in range(calls + _SKIPPED):
    start = time.perf_counter()
    batch = next(source)
    waits.append(time.perf_counter() - start)
    step(batch)
    totals.append(time.perf_counter() - start)
  waiting = sum(waits[_SKIPPED:]) / sum(totals[_SKIPPED:])
  together = statistics.median(totals[_SKIPPED:])
  print(
    f'{name:16s} pipeline {examples / alone:8.0f}  step {examples / computing:8.0f}  together '
    f'{examples / together:8.0f} examples/s   waiting {100 * waiting:5.1f} % of the time '
    f'({per_call} steps a call, {num_seeds} seeds, batch {recipe.train.batch_size})',
    flush=True,
  )


def _medians(function: Any, calls: int) -> float:
  """Median seconds of a call."""
  times = []
  for _ in range(calls + _SKIPPED):
    start = time.perf_counter()
    function()
    times.append(time.perf_counter() - start)
  return statistics.median(times[_SKIPPED:])


def main() -> None:
  """Prints a line for each data set."""
  parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
  parser.add_argument('--method', default='dream')
  parser.add_argument('--seeds', type=int, default=5)
  parser.add_argument('--calls', type=int, default=12)
  parser.add_argument('--shapes', default=','.join(SHAPES))
  arguments = parser.parse_args()
  print(f'{jax.devices()[0].device_kind}, {jax.device_count()} device(s), method {arguments.method}')
  for name in arguments.shapes.split(','):
    measure(name, arguments.method, arguments.seeds, arguments.calls)


if __name__ == '__main__':
  main()
