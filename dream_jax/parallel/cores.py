"""A CPU as several devices: seeds share nothing, so a core for some of them beats cores that share every operation."""

import math
import os

_FLAG = '--xla_force_host_platform_device_count'


def split_cpu(*runs: int) -> None:
  """Makes as many CPU devices as there are cores and as divide all these numbers of runs; before JAX's first use.

  Nothing changes where the user set the number, or where JAX finds an accelerator.
  """
  flags = os.environ.get('XLA_FLAGS', '')
  if _FLAG in flags:
    return
  cores = len(os.sched_getaffinity(0)) if hasattr(os, 'sched_getaffinity') else os.cpu_count() or 1
  common = math.gcd(*runs)
  count = max(d for d in range(1, cores + 1) if common % d == 0)
  if count > 1:
    os.environ['XLA_FLAGS'] = f'{flags} {_FLAG}={count}'.strip()
