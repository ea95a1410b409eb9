"""Processes that tests start leave what they compiled to each other."""

from pathlib import Path


def environment(folder: Path) -> dict[str, str]:
  """Of a process that reads and writes this folder; what took under .2 s is not worth the disk."""
  return {'JAX_COMPILATION_CACHE_DIR': str(folder), 'JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS': '0.2'}
