"""Where tests find the files of a run in a workdir."""

from pathlib import Path


def run_folder(workdir: Path, method: str) -> Path:
  """The folder of the one run of a method."""
  (found,) = (path for path in (workdir / 'runs').iterdir() if path.name.startswith(f'{method}@'))
  return found
