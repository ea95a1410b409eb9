r"""Why the CPU compiles at a lower LLVM level: seconds to compile DREAM's step and milliseconds to run it, per level.

  python benchmarks/compile_options.py [--config=configs/digits.py]

Medians of five calls in one process; compare the ratios, not the numbers of two machines.
"""

import statistics
import sys
import time
from unittest import mock

import jax

from dream_jax.cli.flags import load_config
from dream_jax.config.recipe import recipe_from_config
from dream_jax.experiments import workbench
from dream_jax.models.registry import find_method
from dream_jax.training import programs
from dream_jax.training.feed import Feed
from dream_jax.training.train import Trainer


def main() -> None:
  """Prints one line a level."""
  name = next((a.partition('=')[2] for a in sys.argv[1:] if a.startswith('--config=')), 'configs/digits.py')
  recipe = recipe_from_config(load_config(name))
  prepared = workbench.load_prepared(recipe)
  for level in (3, 2, 1, 0):
    options = {'xla_backend_optimization_level': level}
    with mock.patch.object(programs, 'compiler_options', lambda options=options, once=False: options):
      trainer = Trainer(find_method('dream'), recipe, Feed(recipe, prepared))
    s = trainer.schedule
    batch = next(trainer.batches(0))
    state = trainer.first_state()
    times = []
    for _ in range(6):
      start = time.perf_counter()
      state, terms = trainer.advance(state, batch)
      jax.block_until_ready(terms)
      times.append((time.perf_counter() - start) / s.per_call)
    print(
      f'level {level}: compiled in {trainer.compile_seconds:.1f} s, {1e3 * statistics.median(times[1:]):.1f} ms a step'
      f' of {recipe.num_seeds} seeds',
      flush=True,
    )


if __name__ == '__main__':
  main()
