"""A CPU as several devices: seeds share nothing, so a core for some of them beats cores that share every operation."""

import contextlib
import math
import os
from typing import Any

from dream_jax.errors import UserError

_FLAG = '--xla_force_host_platform_device_count'


def split_for(config: Any) -> None:
  """Splits the CPU for the runs of a config that names no mesh; its reader refuses one that lacks a field."""
  try:
    mesh, search = config.mesh, config.study.search
    counts = (config.num_seeds, search.points * search.seeds)
    automatic = mesh.seed == 0 and mesh.data == -1 and config.parallel == 'jit'
  except (AttributeError, TypeError):
    return
  if automatic and all(isinstance(n, int) and n >= 0 for n in counts):
    split_cpu(*counts)


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


def pretend(count: int) -> list[Any]:
  """`count` CPU devices to compile for, not to run on; JAX sees nothing else afterwards if this is its first use.

  Raises:
    UserError: JAX was used before and has fewer.
  """
  import jax

  # Accelerators may be at work for somebody else, and JAX would take their memory.
  jax.config.update('jax_platforms', 'cpu')
  with contextlib.suppress(RuntimeError):  # It is in use already: what it has may do.
    jax.config.update('jax_num_cpu_devices', count)
  devices = jax.devices('cpu')
  if len(devices) < count:
    raise UserError(f'JAX has {len(devices)} CPU devices already; {count} have to be asked for in a fresh process')
  return devices[:count]
