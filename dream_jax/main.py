"""The command line: flags in, library calls out; exit codes are those of `command`."""

import sys
from collections.abc import Sequence
from typing import Any

from absl import logging

from dream_jax import flags
from dream_jax.command import exit_code
from dream_jax.parallel import cores


def run(arguments: flags.Arguments) -> None:
  """Does what the command line asks for."""
  if arguments.mode == 'help':
    print(flags.USAGE)
  elif arguments.mode == 'list':
    from dream_jax import listing

    listing.print_all()
  elif arguments.mode == 'report':
    from dream_jax.report import text

    text.show(arguments.workdir)
  elif arguments.mode == 'study':
    _split_cpu(arguments.config)
    from dream_jax import study

    study.study(arguments.config, arguments.workdir)
  else:
    _split_cpu(arguments.config)
    from dream_jax import experiment

    action = experiment.train if arguments.mode == 'train' else experiment.evaluate
    action(arguments.config, arguments.workdir)


def _split_cpu(config: Any) -> None:
  """Before anything asks JAX for its devices. A config that lacks a field is told so by whoever reads it."""
  try:
    mesh, search = config.mesh, config.study.search
    counts = (config.num_seeds, search.points * search.seeds)
    automatic = mesh.seed == 0 and mesh.data == -1 and config.parallel == 'jit'
  except (AttributeError, TypeError):
    return
  if automatic and all(isinstance(n, int) and n >= 0 for n in counts):
    cores.split_cpu(*counts)


def main(argv: Sequence[str] | None = None) -> int:
  """The exit code of one command; `argv` is `sys.argv` unless given."""
  logging.set_verbosity(logging.ERROR)
  return exit_code(
    lambda: run(flags.parse(sys.argv if argv is None else argv)),
    writes_to='--workdir',
    after_interrupt='; the same command continues where it stopped',
  )


if __name__ == '__main__':
  sys.exit(main())
