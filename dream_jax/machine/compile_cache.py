"""What was compiled once is not compiled again: JAX's persistent cache, by default in the workdir."""

import os
import warnings
from typing import Any

import jax

from dream_jax.machine import paths

CACHE_FOLDER = 'xla_cache'
# Seconds: reading a smaller program takes as long as compiling it.
_WORTH_KEEPING = 0.3


def use_cache(config: Any, workdir: str) -> None:
  """Keeps compiled programs on the disk, for the next start, another seed, or the run after a preemption.

  A program that cannot be read there is compiled anew, one that cannot be written is not kept.

  Args:
    config: its `compile_cache` names the folder; '' for one in the workdir, 'off' for none. JAX's own environment
      variable JAX_COMPILATION_CACHE_DIR comes first.
    workdir: folder of the run.
  """
  warnings.filterwarnings('ignore', 'Error (reading|writing) persistent compilation cache entry')
  chosen = getattr(config, 'compile_cache', '')
  if chosen == 'off' or os.environ.get('JAX_COMPILATION_CACHE_DIR'):
    return
  chosen = paths.expanded(chosen, 'config.compile_cache')
  if chosen and '://' not in chosen and not _writable(chosen):
    print(f'config.compile_cache={chosen} cannot be written: what is not there is compiled at every start', flush=True)
  jax.config.update('jax_compilation_cache_dir', chosen or os.path.join(workdir, CACHE_FOLDER))
  jax.config.update('jax_persistent_cache_min_compile_time_secs', _WORTH_KEEPING)


def _writable(folder: str) -> bool:
  try:
    os.makedirs(folder, exist_ok=True)
  except OSError:
    return False
  return os.access(folder, os.W_OK)
