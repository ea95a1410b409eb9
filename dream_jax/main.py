"""The command line: flags in, library calls out; exit codes are those of `machine.exit_codes`."""

import contextlib
import sys
import traceback
from collections.abc import Sequence
from typing import NoReturn

from dream_jax.machine.interrupts import GO_ON, end_at_interrupt

if __name__ == '__main__':  # The imports take their time, too.
  end_at_interrupt(GO_ON)

from absl import logging

from dream_jax.cli import flags
from dream_jax.machine import environment
from dream_jax.machine.exit_codes import exit_code


def run(argv: Sequence[str]) -> None:
  """Does what the command line asks for; `argv` has the program's name first."""
  ignored = environment.settle()  # Before the config is read: it loads JAX.
  arguments = flags.parse(argv)
  if arguments.mode == 'help':
    print(flags.USAGE)
  elif arguments.mode == 'list':
    from dream_jax.cli import listing

    listing.print_all()
  elif arguments.mode == 'fields':
    from dream_jax.cli import listing

    listing.print_fields(arguments.config)
  elif arguments.mode == 'report':
    from dream_jax.report import text

    text.show(arguments.workdir)
  else:
    if ignored:
      print(f'not used from the environment, since results must not depend on it: {", ".join(ignored)}', flush=True)
    environment.check_xla_flags()
    if arguments.mode != 'plan':  # Which runs nothing.
      _start(arguments)
    from dream_jax.experiments import experiment, suite
    from dream_jax.scaling import plan

    actions = {'train': experiment.train, 'evaluate': experiment.evaluate, 'study': suite.study, 'plan': plan.plan}
    actions[arguments.mode](arguments.config, arguments.workdir)


def _start(arguments: flags.Arguments) -> None:
  """What has to happen before anything asks JAX for its devices."""
  from dream_jax.machine import compile_cache, cores
  from dream_jax.parallel import hosts
  from dream_jax.workdir import storage

  storage.place(arguments.workdir)
  if arguments.mode != 'evaluate':  # Which only reads checkpoints.
    storage.refuse_wildcards(arguments.workdir)
  if arguments.cluster is None:
    cores.split_for(arguments.config)
  with environment.naming_platforms():
    hosts.start(arguments.cluster)
  environment.start_devices()
  compile_cache.use_cache(arguments.config, arguments.workdir)


def main(argv: Sequence[str] | None = None) -> int:
  """The exit code of one command; `argv` is `sys.argv` unless given."""
  logging.set_verbosity(logging.ERROR)
  try:
    code = exit_code(
      lambda: run(sys.argv if argv is None else argv),
      writes_to='--workdir',
      after_interrupt=GO_ON,
    )
  except Exception:
    if not _with_others():
      raise
    with contextlib.suppress(OSError):  # Nobody may be listening any more, and the others wait.
      traceback.print_exc()
    code = 1
  if not _with_others():
    return code
  from dream_jax.parallel import hosts

  return hosts.leave(code)


def _with_others() -> bool:
  """Whether other processes wait for this one; whoever only read the command line has not even loaded JAX."""
  jax = sys.modules.get('jax')
  return jax is not None and jax.distributed.is_initialized()


def as_process(argv: Sequence[str] | None = None) -> NoReturn:
  """Does one command and ends this process with its exit code; Ctrl-C ends it at once."""
  end_at_interrupt(GO_ON)
  sys.exit(main(argv))


if __name__ == '__main__':
  as_process()
