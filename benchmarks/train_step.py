r"""Speed of the training step: steps, examples and operations a second, share of the peak, compile time and memory.

  python benchmarks/train_step.py [--config=configs/mosei.py] [--methods=dream,mult+dropout] [--dtypes=float32,bfloat16]
                                  [--seeds=1,64] [--repeats=5] [--devices=1]

Takes the shapes of a config and no data: inputs are random numbers that lie on the device, so nothing but the step is
timed. Operations are those of the gradient as XLA counts them unoptimised (docs/notebook/scaling.md), not what a device
happens to execute. The peak is the published one of the accelerator; for a CPU it is what this machine reaches in a
product of two float32 matrices, measured first. Medians of the repeats: on a shared machine compare rows of one run.
"""

import argparse
import dataclasses
import statistics
import time

import jax
import jax.numpy as jnp
import numpy as np

from dream_jax.cli.flags import load_config
from dream_jax.config.recipe import recipe_from_config
from dream_jax.data.datasets import known_of
from dream_jax.models.registry import build, find_method
from dream_jax.parallel.mesh import mesh_over, put, sharding
from dream_jax.report.table import Table
from dream_jax.scaling.chips import CHIPS
from dream_jax.training.programs import compiler_options, lower, step_flops
from dream_jax.training.runs import Runs

_CALL_BYTES = 1 << 30  # of a superbatch: a larger one holds fewer steps
_MOST_STEPS = 8
_MATRIX = 2048
# What JAX calls the chips of the table.
_KINDS = {
  'H100': 'H100 SXM',
  'H200': 'H200',
  'TPU v4': 'TPU v4',
  'TPU v5 lite': 'TPU v5e',
  'TPU v5': 'TPU v5p',
  'TPU v6 lite': 'TPU v6e',
}
_COLUMNS = (
  'method',
  'dtype',
  'seeds',
  'compiled',
  'memory',
  'ms a step',
  'steps/s',
  'examples/s',
  'GFLOP/s',
  'of peak',
)


def main() -> None:
  """Parses the flags, measures, prints one table."""
  parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
  parser.add_argument('--config', default='configs/mosei.py')
  parser.add_argument('--methods', default='dream,mult+dropout')
  parser.add_argument('--dtypes', default='float32,bfloat16')
  parser.add_argument('--seeds', default='1,64')
  parser.add_argument('--repeats', type=int, default=5)
  parser.add_argument('--devices', type=int, default=1)
  args = parser.parse_args()
  recipe = recipe_from_config(load_config(args.config))
  data = recipe.data
  spec, _ = known_of(data.name, tfds_dir=data.tfds_dir, folder=data.dir, options=data.options)
  devices = jax.devices()[: args.devices]
  print(f'{len(devices)} x {devices[0].device_kind}, {spec.name}, batch {recipe.train.batch_size} a seed', flush=True)
  measured = matrix_speed() if devices[0].platform == 'cpu' else None
  if measured is not None:
    print(f'a product of float32 matrices of {_MATRIX} x {_MATRIX} reaches {measured / 1e9:.0f} GFLOP/s', flush=True)
  rows = []
  for method in args.methods.split(','):
    for dtype in args.dtypes.split(','):
      for seeds in map(int, args.seeds.split(',')):
        model = dataclasses.replace(recipe.model, dtype=dtype)
        own = dataclasses.replace(recipe, model=model, num_seeds=seeds)
        peak = measured if measured is not None else published_peak(devices[0].device_kind, dtype) * len(devices)
        rows.append(measure(method, own, spec, devices, args.repeats, peak))
        print('  '.join(rows[-1]), flush=True)
  print()
  print(Table('Training step', _COLUMNS, tuple((' '.join(r[:1]), *r[1:]) for r in rows)).to_text())


def measure(name, recipe, spec, devices, repeats, peak) -> tuple[str, ...]:
  """A row of the table."""
  method, runs = find_method(name), Runs(recipe.seeds)
  seed_axis = int(np.gcd(len(devices), len(runs)))
  mesh = mesh_over(devices, seed_axis)
  floats = 2 * sum(int(np.prod(m.shape)) for m in spec.modalities) * recipe.train.batch_size * len(runs)
  per_call = max(1, min(_MOST_STEPS, _CALL_BYTES // (4 * floats)))
  start = time.perf_counter()
  lowered = lower(method, recipe, spec, mesh, num_steps=1000, per_call=per_call, runs=runs)
  call = lowered.call.compile(compiler_options())
  compiled = time.perf_counter() - start
  used = call.memory_analysis()
  seeds = put(np.asarray(runs.seeds, np.uint32), sharding(mesh, 'seed'))
  create = lowered.create.compile(compiler_options=compiler_options(once=True))
  state = dataclasses.replace(create(seeds), best=None)
  batch = jax.jit(
    lambda: jax.tree.map(random_like, lowered.batch), out_shardings=sharding(mesh, None, 'seed', 'data')
  )()
  times = []
  for _ in range(repeats + 1):
    start = time.perf_counter()
    state, terms = call(state, batch, seeds, {})
    jax.block_until_ready(terms)
    times.append((time.perf_counter() - start) / per_call)
  step = statistics.median(times[1:])
  gradient = step_flops(build(method, spec, recipe.model, recipe.losses), lowered.state.params, lowered.batch)
  flops = (gradient or float('nan')) * len(runs) / step
  size = used.argument_size_in_bytes + used.output_size_in_bytes + used.temp_size_in_bytes - used.alias_size_in_bytes
  examples = recipe.train.batch_size * len(runs) / step
  return (
    name,
    recipe.model.dtype,
    str(len(runs)),
    f'{compiled:.1f} s',
    f'{size / 2**20:,.0f} MiB',
    f'{1e3 * step:.2f}',
    f'{1 / step:.2f}',
    f'{examples:,.0f}',
    f'{flops / 1e9:,.1f}',
    f'{100 * flops / peak:.1f} %',
  )


def random_like(leaf: jax.ShapeDtypeStruct) -> jax.Array:
  """Small numbers; lengths and labels are in their range, and everything is kept."""
  if leaf.dtype == jnp.int32:
    return jnp.ones(leaf.shape, leaf.dtype)
  return jax.random.uniform(jax.random.key(0), leaf.shape, leaf.dtype)


def matrix_speed() -> float:
  """Operations a second of a float32 matrix product on this CPU, the best of ten."""
  x = jnp.ones((_MATRIX, _MATRIX), jnp.float32)
  product = jax.jit(jnp.matmul)
  product(x, x).block_until_ready()
  best = float('inf')
  for _ in range(10):
    start = time.perf_counter()
    product(x, x).block_until_ready()
    best = min(best, time.perf_counter() - start)
  return 2 * _MATRIX**3 / best


def published_peak(kind: str, dtype: str) -> float:
  """Operations a second of a chip that JAX calls `kind`; NaN for one that is not in the table."""
  name = next((title for word, title in _KINDS.items() if word in kind), None)
  return next((chip.peak(dtype) for chip in CHIPS if chip.name == name), float('nan'))


if __name__ == '__main__':
  main()
