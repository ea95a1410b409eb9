r"""What vectorising seeds saves: training S seeds in one program against training one.

  python benchmarks/vectorised_seeds.py [--config=configs/digits.py] [--methods=dream,concat+dropout] [--seeds=8]

Trains nothing to the end: it times calls of the compiled step (batches included), interleaved so that both meet the
same noise of the machine, and prints medians and their ratio. On a CPU each count of seeds gets as many devices as
cores and as divide it, as `dream_jax.main` would give it; so it measures each in a process of its own.
"""

import argparse
import json
import statistics
import subprocess
import sys

_SECONDS = 1.0  # of a measurement: much longer than one call


def main() -> None:
  """Parses the flags, starts the two workers and prints the table."""
  parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
  parser.add_argument('--config', default='configs/digits.py')
  parser.add_argument('--manual_dir', default=None)
  parser.add_argument('--methods', default='dream,concat+dropout')
  parser.add_argument('--seeds', type=int, default=8)
  parser.add_argument('--repeats', type=int, default=5)
  parser.add_argument('--worker', type=int, default=0, help=argparse.SUPPRESS)
  args = parser.parse_args()
  if args.worker:
    work(args)
    return
  command = [sys.executable, __file__, *sys.argv[1:]]
  workers = [
    subprocess.Popen([*command, f'--worker={n}'], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    for n in (1, args.seeds)
  ]
  try:
    for method in args.methods.split(','):
      for worker in workers:
        ask(worker, method)  # Compiles.
      times = [[ask(worker, 'step') for worker in workers] for _ in range(args.repeats)]
      one, many = (statistics.median(column) for column in zip(*times, strict=True))
      ratios = [b / a for a, b in times]
      print(
        f'{method}: {1e3 * one:.2f} ms a step with 1 seed, {1e3 * many:.2f} ms with {args.seeds};'
        f' ratio {statistics.median(ratios):.2f} (median of {args.repeats}: {", ".join(f"{r:.2f}" for r in ratios)})',
        flush=True,
      )
  finally:
    for worker in workers:
      worker.kill()


def ask(worker: subprocess.Popen, text: str) -> float:
  """What a worker answers: seconds a step, or 0 when it has compiled."""
  assert worker.stdin is not None
  assert worker.stdout is not None
  worker.stdin.write(text + '\n')
  worker.stdin.flush()
  return json.loads(worker.stdout.readline())


def work(args: argparse.Namespace) -> None:
  """Compiles the method it is told, and times one call whenever it is told 'step'."""
  from dream_jax.machine.cores import split_cpu

  split_cpu(args.worker)
  import dataclasses
  import time

  import jax

  from dream_jax.cli.flags import load_config
  from dream_jax.config.recipe import recipe_from_config
  from dream_jax.experiments.workbench import Workbench, load_prepared
  from dream_jax.models.registry import find_method

  recipe = recipe_from_config(load_config(args.config))
  recipe = dataclasses.replace(recipe, num_seeds=args.worker)
  if args.manual_dir:
    recipe = dataclasses.replace(recipe, data=dataclasses.replace(recipe.data, manual_dir=args.manual_dir))
  bench = Workbench(recipe, load_prepared(recipe))
  trainer = state = batches = None
  for line in sys.stdin:
    if line.strip() != 'step':
      trainer = bench.trainer(find_method(line.strip()))
      state = trainer.first_state()
      batches = endless(trainer)
      state = call(trainer, state, batches)
      print(0.0, flush=True)
      continue
    start = time.perf_counter()
    steps = 0
    while time.perf_counter() - start < _SECONDS:  # Calls of one seed hold more steps than calls of many.
      state = jax.block_until_ready(call(trainer, state, batches))
      steps += trainer.schedule.per_call
    print((time.perf_counter() - start) / steps, flush=True)


def endless(trainer):
  """What training reads, over and over."""
  while True:
    yield from trainer.batches(0)


def call(trainer, state, batches):
  """The state after one more call."""
  return trainer.advance(state, next(batches))[0]


if __name__ == '__main__':
  main()
