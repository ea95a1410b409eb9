"""Checkpoints on Orbax: a save is whole or absent, a restore fits or says why, and nothing is ever overwritten.

On the disk: `DIRECTORY/state/STEP` (what training resumes from, the last few) and `DIRECTORY/best/STEP` (what selection
chose, one). A save that was killed half-way leaves a temporary folder that the next writer removes. The last file of a
save is its seal: the run it belongs to, its place, and the hashes of its files, since TensorStore does not notice a
flipped bit in an array and returns wrong numbers. A save without a seal is not finished. A bucket keeps checksums of
its own, so seals have no hashes there.
"""

import errno
import hashlib
import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import jax
import numpy as np
import orbax.checkpoint as ocp
from etils import epath

from dream_jax.errors import Preempted, UserError
from dream_jax.machine import disk
from dream_jax.parallel import hosts
from dream_jax.workdir import sealed, storage

_STATE, _BEST = 'state', 'best'
_SEAL = 'sha256.json'
# What to do about a save that is not as it was made.
_REMEDIES = {
  _STATE: 'remove that folder to go on from the save before it, or start again in another --workdir',
  _BEST: 'remove the folder of that run in runs/ and run the command of the workdir again: that run is made again',
}


def checkpoint_folder(workdir: str, method: str) -> str:
  """`Checkpoints` of a method: where the states and the selected parameters of a method lie."""
  return f'{workdir}/checkpoints/{storage.without_wildcards(method)}'


def of_method(run: str | None, method: str) -> str | None:
  """The `run` of `Checkpoints` of a method: two methods of one run may have parameters of equal shapes."""
  return None if run is None else f'{run} {method}'


class _Manager(ocp.CheckpointManager):
  """Orbax's, that does not ask whether SIGTERM has come.

  The runtime answers one asker, whose places are numbered one by one: `hosts.stopping`. Orbax asks it with numbers of
  steps. A signal between the two would be promised for a place that is never reached, and the program never stops.
  """

  def reached_preemption(self, step: int) -> bool:
    return False


class Checkpoints:
  """The checkpoints of one method; always used as a context manager, which waits for the save in flight.

  Not after a failure in one of several processes: its save waits for others, who may be dead or wait for this one.

  Args:
    directory: folder of this method's checkpoints; made by the first save.
    run: what the saves belong to, see `of_method`; None reads those of any run.
    max_to_keep: how many states stay.
    read_only: True never makes, removes or writes anything, so it is safe beside a run that is still training.

  Raises:
    UserError: what would be saved in this folder could not be read again, see `storage.refuse_wildcards`.
  """

  def __init__(
    self,
    directory: str | os.PathLike[str],
    *,
    run: str | None = None,
    max_to_keep: int = 2,
    read_only: bool = False,
  ):
    self._directory = storage.place(directory if storage.in_bucket(directory) else os.path.abspath(directory))
    if not read_only:
      storage.refuse_wildcards(self._directory)
    self._run, self._max_to_keep = run, max_to_keep
    self._read_only = read_only
    self._managers: dict[str, _Manager] = {}
    self._unsealed: list[epath.Path] = []

  def save(self, step: int, state: Any) -> None:
    """Starts saving `state`; the arrays may be donated as soon as this returns.

    A step that is already there stays as it is. Errors of the disk surface here, in a later call or at the end of the
    `with` block.

    Raises:
      ValueError: a later step is already there, which means the caller did not resume from it.
      OSError: the disk is full, read-only or not ours to write.
    """
    with _disk_errors(self._directory):
      manager = self._manager(_STATE, write=True)
      latest = manager.latest_step()
      if latest is not None and step < latest:
        raise ValueError(f'{self._directory} holds step {latest}; saving step {step} would leave two histories')
      self._require_space(state)
      # Orbax finishes one save before it starts the next; waiting here lets us seal it.
      manager.wait_until_finished()
      self._seal()
      # Orbax answers False where the step is already there.
      if manager.save(step, args=ocp.args.StandardSave(state)):
        self._unsealed.append(self._directory / _STATE / str(step))

  def save_best(self, step: int, params: Any) -> None:
    """Saves what selection chose at `step`, instead of the earlier choice, and waits until it is there.

    A choice at this step or after it comes from a run that was killed and is now replayed: it is replaced.
    """
    with _disk_errors(self._directory):
      manager = self._manager(_BEST, write=True)
      self.wait()
      self._require_space(params)
      for old in manager.all_steps():
        if old >= step:
          manager.delete(old)
      manager.save(step, args=ocp.args.StandardSave(params), force=True)
      self._unsealed.append(self._directory / _BEST / str(step))
      self.wait()

  def restore_latest(self, abstract_state: Any) -> tuple[int, Any] | None:
    """(step, state) of the last finished save, or None where there is none. A writer removes unfinished ones after it.

    Args:
      abstract_state: tree of jax.ShapeDtypeStruct; a leaf's sharding says where the array is put (default: the first
        device). The tree of the checkpoint must equal it leaf by leaf in name, shape and dtype.

    Raises:
      UserError: the checkpoint is damaged, of another run or made for another model; nothing is changed.
    """
    if not self._read_only:
      self.wait()
      self._remove_unfinished()
    return self._restore(_STATE, abstract_state)

  def restore_best(self, abstract_params: Any = None) -> tuple[int, Any] | None:
    """(step, params) that selection chose, or None; without `abstract_params` a nested dict of NumPy arrays.

    Raises:
      UserError: as `restore_latest`, or the save was not finished.
    """
    finished, unfinished = self._steps(_BEST)
    if unfinished and not finished:
      folder = self._directory / _BEST / str(unfinished[-1])
      raise UserError(f'checkpoint {folder} is not finished: it has no seal; {_REMEDIES[_BEST]}')
    return self._restore(_BEST, abstract_params)

  def latest_step(self) -> int | None:
    """The step of the last finished save, or None."""
    return max(self._steps(_STATE)[0], default=None)

  def best_step(self) -> int | None:
    """The step that selection chose, or None."""
    return max(self._steps(_BEST)[0], default=None)

  def has_best(self, step: int) -> bool:
    """Whether what selection chose at `step` is there as it was saved."""

    def whole() -> bool:
      try:
        self._check_seal(_BEST, step)
      except UserError:
        return False
      return True

    return self.best_step() == step and hosts.agree(whole)

  def wait(self) -> None:
    """Waits until every save that was started is on the disk."""
    with _disk_errors(self._directory):
      for manager in self._managers.values():
        manager.wait_until_finished()
      self._seal()

  def close(self) -> None:
    """Waits and closes; leaving without it would leave a half-written save."""
    managers, self._managers = self._managers, {}
    with _disk_errors(self._directory):
      for manager in managers.values():
        manager.close()
      self._seal()

  def __enter__(self) -> 'Checkpoints':
    return self

  def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
    if kind is None or issubclass(kind, Preempted) or not hosts.several():
      self.close()

  def _manager(self, kind: str, *, write: bool) -> _Manager:
    if write and self._read_only:
      raise ValueError(f'{self._directory} was opened read-only')
    if kind not in self._managers:
      _quieten_orbax()
      options = ocp.CheckpointManagerOptions(
        max_to_keep=self._max_to_keep if kind == _STATE else 1,
        create=not self._read_only,
        cleanup_tmp_directories=not self._read_only,
        # Two managers at work must not meet each other's barriers.
        multiprocessing_options=ocp.options.MultiprocessingOptions(barrier_sync_key_prefix=kind),
      )
      self._managers[kind] = _Manager(
        self._directory / kind, options=options, item_handlers=ocp.StandardCheckpointHandler()
      )
    return self._managers[kind]

  def _seal(self) -> None:
    """Seals the saves that are finished; those of a save that was dropped meanwhile are not missed."""
    folders, self._unsealed = self._unsealed, []
    for folder in folders:
      if hosts.is_main() and folder.is_dir():
        files = {} if storage.in_bucket(folder) else _hashes(folder)
        sealed.write(folder / _SEAL, {'files': files}, run=self._run, name=f'{folder.parent.name}/{folder.name}')

  def _check_seal(self, kind: str, step: int) -> None:
    """Compares a save with its seal.

    Raises:
      UserError: it is damaged, not finished, or of another run or place.
    """
    folder, remedy = self._directory / kind / str(step), _REMEDIES[kind]
    try:
      seal = sealed.read(folder / _SEAL, run=self._run, name=f'{kind}/{step}', remedy=remedy)
    except FileNotFoundError:
      raise UserError(f'checkpoint {folder} is not finished: it has no seal; {remedy}') from None
    expected = seal.content['files']
    found = _hashes(folder) if expected else {}
    for name, digest in expected.items():
      if found.get(name) != digest:
        raise _damaged(folder, f'{name} is {"changed" if name in found else "gone"}', remedy)

  def _steps(self, kind: str) -> tuple[list[int], list[int]]:
    """Steps of the saves that are there, in order: the finished ones, and those without a seal."""
    folder = self._directory / kind
    # Another process may have begun to save meanwhile: whether there is a folder is decided once, too.
    if not hosts.agree(lambda: kind in self._managers or folder.is_dir()):
      return [], []
    steps = sorted(self._manager(kind, write=False).all_steps())
    finished = hosts.agree(lambda: [step for step in steps if (folder / str(step) / _SEAL).exists()])
    return finished, [step for step in steps if step not in finished]

  def _remove_unfinished(self) -> None:
    """Removes saves that a kill left without a seal, after the last one that has its own."""
    finished, unfinished = self._steps(_STATE)
    last = max(finished, default=-1)
    for step in (step for step in unfinished if step > last):
      on = f'the save before it, of step {last}' if finished else 'the start'
      print(
        f'checkpoint {self._directory / _STATE / str(step)} has no seal: that save was not finished; '
        f'it is removed, and training goes on from {on}',
        flush=True,
      )
      self._manager(_STATE, write=True).delete(step)

  def _require_space(self, tree: Any) -> None:
    """Refuses before the first byte: a disk that fills up during a save makes Orbax's threads print tracebacks."""
    needed = sum(getattr(leaf, 'nbytes', 0) for leaf in jax.tree.leaves(tree))
    free = storage.free_bytes(self._directory)
    if free is not None and free < needed:
      raise OSError(
        errno.ENOSPC, f'{os.strerror(errno.ENOSPC)} for a checkpoint of {needed:,} bytes', str(self._directory)
      )

  def _restore(self, kind: str, abstract: Any) -> tuple[int, Any] | None:
    step = max(self._steps(kind)[0], default=None)
    if step is None:
      return None
    folder = self._directory / kind / str(step)
    manager = self._manager(kind, write=False)
    hosts.agree(lambda: self._check_seal(kind, step))
    try:
      metadata = manager.item_metadata(step)
      found = getattr(metadata, 'tree', metadata)
      if found is None:
        raise ValueError('it holds no description of its arrays')
      if abstract is None:
        abstract = jax.tree.map(_empty, found)
      _check_tree(folder, found, abstract)
      return step, manager.restore(step, args=ocp.args.StandardRestore(jax.tree.map(_placed, abstract)))
    except (UserError, MemoryError, jax.errors.JaxRuntimeError):
      raise
    except Exception as error:  # Damage surfaces from Orbax, JSON and TensorStore as any type, even a bare Exception.
      reason = (str(error).splitlines() or [''])[0][:160]
      raise _damaged(folder, f'{type(error).__name__}: {reason}', _REMEDIES[kind]) from error


def _hashes(folder: epath.Path) -> dict[str, str]:
  """Relative path -> SHA-256 of every file below `folder`, but for the seal."""
  files = sorted(path for path in Path(folder).rglob('*') if path.is_file() and path.name != _SEAL)
  return {path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def selected(folder: str, method: str, key: str, abstract: Any = None) -> Any:
  """The parameters that validation selected in a run, as arrays of all seeds.

  Args:
    folder: that of the run.
    method: what was trained there.
    key: of the run.
    abstract: shapes and places that they have to have; None takes those they were saved with.

  Raises:
    UserError: there are none, or they are damaged or of another run.
  """
  with Checkpoints(checkpoint_folder(folder, method), run=of_method(key, method), read_only=True) as checkpoints:
    found = checkpoints.restore_best(abstract)
  if found is None:
    raise UserError(f'{folder} holds no selected parameters of {method}; remove it: its run is made again')
  return found[1]


def _damaged(folder: epath.Path, reason: str, remedy: str) -> UserError:
  return UserError(f'checkpoint {folder} cannot be read ({reason}); it is damaged: {remedy}')


def _check_tree(folder: epath.Path, found: Any, expected: Any) -> None:
  """Compares two trees leaf by leaf, by name, so that the message can name the leaf that differs."""
  have, want = _leaves(found), _leaves(expected)
  different = [name for name in want if want[name] != have.get(name)] + [name for name in have if name not in want]
  if not different:
    return
  name = different[0]
  more = f' (and {len(different) - 1} more)' if len(different) > 1 else ''
  raise UserError(
    f'checkpoint {folder} was made for another model: {name} is {have.get(name, "absent")} there, expected'
    f' {want.get(name, "no such array")}{more}; use the config it was made with or another --workdir'
  )


def _leaves(tree: Any) -> dict[str, str]:
  leaves = jax.tree_util.tree_flatten_with_path(tree)[0]
  return {jax.tree_util.keystr(path, simple=True, separator='/'): _signature(leaf) for path, leaf in leaves}


def _signature(leaf: Any) -> str:
  shape = getattr(leaf, 'shape', None)
  dtype = getattr(leaf, 'dtype', None)
  if shape is None or dtype is None:
    return type(leaf).__name__
  return f'{np.dtype(dtype).name}[{",".join(map(str, shape))}]'


def _empty(leaf: Any) -> np.ndarray:
  # A NumPy leaf asks Orbax for NumPy: readable on any number of devices. The broadcast costs no memory.
  return np.broadcast_to(np.zeros((), np.dtype(leaf.dtype)), leaf.shape)


def _placed(leaf: Any) -> Any:
  if isinstance(leaf, np.ndarray):
    return leaf
  sharding = getattr(leaf, 'sharding', None) or jax.sharding.SingleDeviceSharding(jax.local_devices()[0])
  return jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=sharding)


@contextmanager
def _disk_errors(directory: epath.Path) -> Iterator[None]:
  """TensorStore reports the disk's errors inside the text of another; they are OSErrors to us, and name the folder."""
  try:
    yield
  except UserError:
    raise
  except Exception as error:
    found = disk.refusal(error) or disk.tensorstore_error(error)
    if found is None or found.filename is not None:
      raise
    raise OSError(found.errno, found.strerror, str(directory)) from error


class _RaisedAnyway(logging.Filter):
  """Drops Orbax's log lines: what goes wrong there is raised to us, once, with a message of our own."""

  def filter(self, record: logging.LogRecord) -> bool:
    return 'orbax' not in record.pathname


def _quieten_orbax() -> None:
  logger = logging.getLogger('absl')
  if not any(isinstance(f, _RaisedAnyway) for f in logger.filters):
    logger.addFilter(_RaisedAnyway())
