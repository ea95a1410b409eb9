r"""How long a loaded model takes to answer: warm, and the first time for a number of rows.

  python benchmarks/predict_latency.py WORKDIR [--method=dream] [--repeats=50] [--json=FILE]

Models compile once for every power of two of rows. A number of rows inside a power that was met should cost nothing but
its forward pass. Inputs are random arrays of the right shapes; medians over repeats, with the middle half in brackets
as the noise of this machine.
"""

import argparse
import json
import sys
import time
from collections.abc import Callable
from typing import Any

import numpy as np

import dream_jax
from dream_jax.errors import UserError
from dream_jax.spec import DatasetSpec

_SIZES = (1, 8, 64)


def main(arguments: list[str]) -> int:
  """Measures and prints."""
  parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
  parser.add_argument('workdir')
  parser.add_argument('--method', default='dream')
  parser.add_argument('--repeats', type=int, default=50)
  parser.add_argument('--json')
  options = parser.parse_args(arguments)
  try:
    predictor = dream_jax.load(options.workdir, method=options.method)
  except UserError as error:
    print(f'predict_latency: {error}', file=sys.stderr)
    return 2
  found: dict[str, Any] = {}
  for size in _SIZES:
    inputs = _inputs(predictor.spec, size)
    found[f'{size} rows, first'] = [_milliseconds(lambda x=inputs: predictor(x))]
    found[f'{size} rows, warm'] = [_milliseconds(lambda x=inputs: predictor(x)) for _ in range(options.repeats)]
  for size in (63, 48, 33):
    inputs = _inputs(predictor.spec, size)
    found[f'{size} rows, first, 64 met'] = [_milliseconds(lambda x=inputs: predictor(x))]
  for name, times in found.items():
    low, middle, high = np.percentile(times, (25, 50, 75))
    print(f'{name:24s} {middle:9.2f} ms  [{low:.2f}, {high:.2f}]')
  if options.json:
    with open(options.json, 'w', encoding='utf-8') as file:
      json.dump({'workdir': options.workdir, 'method': options.method, 'milliseconds': found}, file, indent=1)
  return 0


def _inputs(spec: DatasetSpec, size: int) -> dict[str, np.ndarray]:
  rng, made = np.random.default_rng(0), {}
  for m in spec.modalities:
    if m.kind == 'tokens':
      made[m.name] = rng.integers(1, m.vocab_size, (size, *m.shape)).astype(np.int32)
    else:
      made[m.name] = rng.standard_normal((size, *m.shape), np.float32)
    if m.has_length:
      made[m.length_name] = np.full(size, m.shape[0], np.int32)
  return made


def _milliseconds(call: Callable[[], Any]) -> float:
  start = time.perf_counter()
  call()
  return 1e3 * (time.perf_counter() - start)


if __name__ == '__main__':
  sys.exit(main(sys.argv[1:]))
