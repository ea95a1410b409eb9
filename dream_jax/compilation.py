"""What was compiled once is not compiled again: JAX's persistent cache, by default in the workdir."""

import os
from typing import Any

import jax

from dream_jax import paths

CACHE_FOLDER = 'xla_cache'
# Seconds: reading a smaller program takes as long as compiling it.
_WORTH_KEEPING = 0.3


def use_cache(config: Any, workdir: str) -> None:
  """Keeps compiled programs on the disk, for the next start, another seed, or the run after a preemption.

  Args:
    config: its `compile_cache` names the folder; '' for one in the workdir, 'off' for none. JAX's own environment
      variable JAX_COMPILATION_CACHE_DIR comes first.
    workdir: folder of the run.
  """
  chosen = getattr(config, 'compile_cache', '')
  if chosen == 'off' or os.environ.get('JAX_COMPILATION_CACHE_DIR'):
    return
  folder = paths.expanded(chosen, 'config.compile_cache') or os.path.join(workdir, CACHE_FOLDER)
  jax.config.update('jax_compilation_cache_dir', folder)
  jax.config.update('jax_persistent_cache_min_compile_time_secs', _WORTH_KEEPING)
