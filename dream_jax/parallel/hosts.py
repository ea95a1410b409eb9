"""Several processes that act as one program: they start together, agree, and stop together.

JAX's own runtime connects them. Process 0 speaks for all: it alone writes logs and results. What depends on a clock, on
the disk or on free memory is decided by it and told to the others, since processes that decide differently wait for
each other forever. In a program of one process everything here does nothing, but for `stopping`.
"""

import contextlib
import itertools
import json
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import jax
import numpy as np
from jax.experimental import multihost_utils

from dream_jax.errors import Interrupted, Preempted, UserError
from dream_jax.parallel.cluster import Cluster

# Seconds without a sign of life after which a process counts as dead and ends all; that all have to start; and between
# a mistake and the exit that ends the others.
_HEARTBEAT, _START, _LAST_WORDS = 30, 300, 3

# Whether a signal asked this process to stop, and whether that was SIGINT; whether somebody listens; whether all
# processes were told.
_asked_to_stop = _interrupted = _listening = _all_stop = False
_points = itertools.count()


def start(cluster: Cluster | None) -> None:
  """Joins the other processes, if there are any, and turns signals into `stopping`; before JAX is used.

  SIGTERM always, SIGINT where somebody is `listening`; elsewhere, and when it comes twice, SIGINT does what it did.

  Raises:
    UserError: the processes do not find each other, or this is one of several and was not told so.
  """
  global _asked_to_stop, _interrupted, _all_stop
  _asked_to_stop = _interrupted = _all_stop = False
  _listen_to_interrupts()
  if cluster is None:
    signal.signal(signal.SIGTERM, _ask_to_stop)
    return
  if cluster.coordinator is None:
    where = 'as the cluster says'
    hint = 'expected Cloud TPU, GKE or Slurm; elsewhere give --coordinator=HOST:PORT --num_processes=N --process_id=I'
  else:
    where = f'process 0 at {cluster.coordinator}'
    hint = f'expected process 0 to listen at {cluster.coordinator} and all {cluster.num_processes} processes to start'
  print(f'joining the other processes, {where}; waiting up to {_START} s for all', flush=True)
  # The runtime would abort the process without a word of why.
  patience = threading.Timer(_START, _give_up, [f'the processes did not find each other in {_START} s; {hint}'])
  patience.daemon = True
  patience.start()
  try:
    # It listens to SIGTERM itself.
    jax.distributed.initialize(
      cluster.coordinator,
      cluster.num_processes,
      cluster.process_id,
      heartbeat_timeout_seconds=_HEARTBEAT,
      initialization_timeout=2 * _START,
    )
  except (RuntimeError, ValueError) as error:
    reason = (str(error).splitlines() or [''])[0][:200]
    raise UserError(f'the processes did not find each other ({reason}); {hint}') from error
  finally:
    patience.cancel()
  if not several():
    signal.signal(signal.SIGTERM, _ask_to_stop)  # There is nobody the runtime could tell.
  if jax.process_index():
    sys.stdout = open(os.devnull, 'w', encoding='utf-8')  # noqa: SIM115  # Until the process ends.
  if jax.default_backend() == 'cpu' and jax.local_device_count() > 1 and several():
    raise UserError(
      f'{jax.local_device_count()} CPU devices in each of {jax.process_count()} processes; JAX hangs there: set'
      ' XLA_FLAGS=--xla_force_host_platform_device_count=1'
    )


def check_started() -> None:
  """Raises UserError in one of several processes that never met: each would think it were alone with the disk."""
  if several() and not jax.distributed.is_initialized():
    raise UserError(f'this is one of {jax.process_count()} processes; add --distributed to the command on each of them')


def several() -> bool:
  """Whether there are other processes."""
  return jax.process_count() > 1


def is_main() -> bool:
  """Whether this process writes and prints."""
  return jax.process_index() == 0


def agree(decide: Callable[[], Any]) -> Any:
  """What `decide` gives in process 0, which alone calls it; JSON's types. All processes have to ask.

  Raises:
    UserError: `decide` did; everybody is told, so that nobody waits for a process that has left.
  """
  if not several():
    return decide()
  data = json.dumps(_decided(decide)).encode() if is_main() else b''
  size = int(multihost_utils.broadcast_one_to_all(np.int32(len(data))))
  padded = np.frombuffer(data.ljust(size, b' '), np.uint8)[:size]
  value, refusal = json.loads(np.asarray(multihost_utils.broadcast_one_to_all(padded)).tobytes())
  if refusal is not None:
    raise UserError(refusal)
  return value


def _decided(decide: Callable[[], Any]) -> tuple[Any, str | None]:
  """(what it gives, why it refuses), one of them None."""
  try:
    return decide(), None
  except UserError as error:
    return None, str(error)


def wait(name: str) -> None:
  """Until every process is here."""
  if several():
    multihost_utils.sync_global_devices(name)


@contextlib.contextmanager
def listening() -> Iterator[None]:
  """While this is entered somebody asks `stopping` again and again, and SIGINT need not break off what is under way."""
  global _listening
  _listening = True
  try:
    yield
  finally:
    _listening = False


def stopping() -> bool:
  """Whether to save and leave now: a signal reached one of the processes, and all of them learn it at the same place.

  Every process has to ask at the same places.
  """
  global _all_stop
  if not several():
    return _asked_to_stop
  # The runtime picks a place that nobody has reached yet; it wants them numbered one by one.
  _all_stop = _all_stop or multihost_utils.reached_preemption_sync_point(next(_points))
  return _all_stop


def stopped(done: str) -> Preempted:
  """What to raise where `stopping` said so and everything is saved: which signal asked, and what is done.

  All processes have to ask, and get the same.
  """
  interrupted = _interrupted
  if several():
    interrupted = bool(multihost_utils.process_allgather(np.int32(interrupted)).any())
  return Interrupted(f'interrupted: {done}') if interrupted else Preempted(f'SIGTERM: {done}')


def leave(code: int) -> int:
  """The exit code, when everybody may go: at the end, or where all were told to stop and have saved.

  After a failure this process goes at once, and takes the others with it.

  For a program that was started with others.
  """
  with contextlib.suppress(OSError):
    sys.stdout.flush()
    sys.stderr.flush()
  if code and not (code == 130 and _all_stop):
    # Most mistakes are found by all at once: let each say so before the first exit ends the others.
    time.sleep(_LAST_WORDS if code == 2 else 0)
    # A proper farewell would wait for the others, who wait for us in some collective.
    os._exit(code)
  wait('done')
  jax.distributed.shutdown()
  return code


def _give_up(message: str) -> None:
  print(f'dream_jax: {message}', file=sys.stderr, flush=True)
  os._exit(2)


def _ask_to_stop(*_: Any) -> None:
  global _asked_to_stop
  _asked_to_stop = True


def _listen_to_interrupts() -> None:
  """Puts `stopping` before whatever Ctrl-C did until now, which it does again for whoever asks twice."""
  otherwise = signal.getsignal(signal.SIGINT)
  if not callable(otherwise) or getattr(otherwise, 'listens', False):  # Ignored by a shell, or ours already.
    return

  def interrupt(number: int, frame: Any) -> None:
    global _asked_to_stop, _interrupted
    first, _asked_to_stop, _interrupted = not _interrupted, True, True
    if not (first and _listening):
      otherwise(number, frame)
    if sys.stderr.isatty():
      os.write(2, b'\nfinishing this call and saving; Ctrl-C again ends at once\n')
    if several():
      signal.raise_signal(signal.SIGTERM)  # The runtime's own handler tells the others.

  interrupt.listens = True  # pyright: ignore[reportFunctionMemberAccess]
  signal.signal(signal.SIGINT, interrupt)
