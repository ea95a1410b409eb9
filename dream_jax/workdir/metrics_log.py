"""What a run leaves behind while it runs: metric lines, TensorBoard events, a progress line.

Everything here survives a kill at any moment: a line is appended in one write.
"""

import math
import os
import shutil
import sys
import time
from collections.abc import Callable, Mapping
from typing import Any, TextIO

import numpy as np
from etils import epath

from dream_jax.errors import UserError
from dream_jax.workdir import sealed, storage

METRICS_FILE = 'metrics.jsonl'
TENSORBOARD_FOLDER = 'tensorboard'


class MetricsWriter:
  """Appends metrics of one method to `metrics.jsonl` and to a TensorBoard run folder of its own.

  Several methods share one `metrics.jsonl`, one writer at a time. Opening the writer drops the lines of this method
  that lie after `resume_step`, so a run that was killed and resumed leaves the same file as one that was not.
  """

  def __init__(
    self,
    workdir: str | os.PathLike[str],
    method: str,
    *,
    run: str | None = None,
    resume_step: int = -1,
    tensorboard: bool = True,
    enabled: bool = True,
  ):
    """Opens both logs.

    Args:
      workdir: folder of the run; made if it is not there.
      method: name that goes into every line and names the TensorBoard run.
      run: what every line belongs to.
      resume_step: the last step that is kept; -1 starts afresh.
      tensorboard: whether to write events too.
      enabled: False makes every call a no-op: all processes but the first pass it.

    Raises:
      UserError: a line that is there is damaged or of another run, or lines up to `resume_step` are missing.
    """
    self._method, self._run = method, run
    self._log: storage.Log | None = None
    self._events: Any = None
    if not enabled:
      return
    path = storage.place(workdir) / METRICS_FILE
    _forget_after(path, method, resume_step, run)
    self._log = storage.open_log(path)
    if tensorboard:
      from dream_jax.workdir.events import Events

      folder = storage.place(workdir) / TENSORBOARD_FOLDER / storage.without_wildcards(method)
      self._folder = storage.Mirror(folder)
      self._events = Events(self._folder.local, forget_from=resume_step + 1)

  def write(self, step: int, values: Mapping[str, Any]) -> None:
    """Appends one line `{"method", "step", **values}`.

    Args:
      step: number of the training step.
      values: metric name -> number or array [S], one value a seed; TensorBoard shows the mean over seeds where it is
        finite.
    """
    if self._log is None:
      return
    self._log.append(sealed.line({'method': self._method, 'step': int(step), **values}, run=self._run))
    if self._events is not None:
      arrays = {name: np.asarray(value) for name, value in values.items()}
      means = {name: float(x.mean()) for name, x in arrays.items() if x.dtype.kind in 'fiub' and x.size}
      self._events.add(int(step), {name: mean for name, mean in means.items() if math.isfinite(mean)})

  def flush(self) -> None:
    """Forces what was written down to the disk; call it before a checkpoint that refers to it."""
    if self._log is not None:
      self._log.sync()
    if self._events is not None:
      self._events.flush()
      self._folder.sync()

  def close(self) -> None:
    """Flushes and closes; further writes are dropped."""
    if self._log is not None:
      log, self._log = self._log, None
      log.close()
    if self._events is not None:
      self._events.close()
      self._folder.close()
      self._events = None

  def __enter__(self) -> 'MetricsWriter':
    return self

  def __exit__(self, *_: object) -> None:
    self.close()


class Progress:
  """One line that says how far a run is and when it ends.

  On a terminal the line is drawn over itself; elsewhere a plain line comes every 10 seconds or every fifth of the way,
  whichever is rarer to annoy: short runs print five lines, long ones six a minute.
  """

  def __init__(
    self,
    total: int,
    *,
    label: str = '',
    start: int = 0,
    examples_per_step: int = 0,
    stream: TextIO | None = None,
    enabled: bool = True,
    clock: Callable[[], float] = time.monotonic,
  ):
    """Starts the clock.

    Args:
      total: the last step.
      label: what is running, for instance the method.
      start: the step this run starts from (a resumed run does not count what it did not do).
      examples_per_step: examples that one step consumes; 0 prints no rate in examples.
      stream: where to write; standard output by default.
      enabled: False keeps silent.
      clock: seconds that only grow; tests pass their own.
    """
    self._total, self._label, self._examples = max(total, 1), label, examples_per_step
    self._stream = sys.stdout if stream is None else stream
    self._terminal = bool(getattr(self._stream, 'isatty', lambda: False)())
    self._enabled, self._clock = enabled, clock
    self._first: tuple[int, float] = (start, clock())
    self._measured = False
    self._printed_step, self._printed_time = start, clock()
    self._width = 0

  def update(self, step: int, note: str = '') -> None:
    """Reports that `step` steps are done; `note` (a loss, a score) is shown at the end of the line."""
    if not self._enabled:
      return
    now = self._clock()
    line = self._line(step, now, note)
    if not self._measured:
      # The first step carries the compilation; the rate is measured from its end.
      self._first, self._measured = (step, now), True
    if not self._due(step, now):
      return
    self._printed_step, self._printed_time = step, now
    if self._terminal:
      columns = shutil.get_terminal_size().columns - 1
      self._stream.write('\r' + line[:columns].ljust(min(self._width, columns)))
      self._width = len(line)
    else:
      self._stream.write(line + '\n')
    self._stream.flush()

  def close(self) -> None:
    """Ends the drawn line, so that what is printed next starts on its own."""
    if self._enabled and self._terminal and self._width:
      self._stream.write('\n')
      self._stream.flush()
      self._width = 0

  def __enter__(self) -> 'Progress':
    return self

  def __exit__(self, *_: object) -> None:
    self.close()

  def _due(self, step: int, now: float) -> bool:
    if step >= self._total:
      return step != self._printed_step
    waited = now - self._printed_time
    if self._terminal:
      return waited >= 0.1
    return waited >= 10.0 or (step - self._printed_step) * 5 >= self._total

  def _line(self, step: int, now: float, note: str) -> str:
    done, since = step - self._first[0], now - self._first[1]
    bar = ''
    if self._terminal:
      filled = min(20, 20 * step // self._total)
      bar = f' [{"#" * filled}{"." * (20 - filled)}]'
    parts = [f'{self._label}{bar} step {step}/{self._total}'.strip()]
    if self._measured and done > 0 and since > 0:
      rate = done / since
      if step < self._total:
        parts.append(f'{_duration((self._total - step) / rate)} left')
      parts.append(f'{rate * self._examples:,.0f} examples/s' if self._examples else f'{rate:.3g} steps/s')
    if note:
      parts.append(note)
    return ', '.join(parts)


def _duration(seconds: float) -> str:
  whole = round(seconds)
  hours, minutes, rest = whole // 3600, whole // 60 % 60, whole % 60
  return f'{hours}:{minutes:02}:{rest:02}' if hours else f'{minutes}:{rest:02}'


def read_metrics(workdir: str | os.PathLike[str], *, run: str | None = None) -> list[tuple[bytes, dict[str, Any]]]:
  """(line, record) of every whole line of a workdir's metrics; none where there is no such file.

  Raises:
    UserError: a line is damaged or of another run.
  """
  path = storage.place(workdir) / METRICS_FILE
  try:
    data = path.read_bytes()
  except FileNotFoundError:
    return []
  return sealed.records(data, path, run=run, remedy='remove that line to go on without it, or choose another --workdir')


def _forget_after(path: epath.Path, method: str, step: int, run: str | None) -> None:
  """Drops the lines of `method` after `step`, and what a kill tore."""
  lines = read_metrics(path.parent, run=run)
  mine = [record['step'] for _, record in lines if record['method'] == method and record['step'] <= step]
  if step >= 0 and mine[-1:] != [step]:  # A checkpoint is saved after the line of its step.
    raise UserError(
      f'{path} lacks lines of {method}: the last is of step {mine[-1] if mine else "none"}, its checkpoint of step'
      f' {step}; bring the file back, or remove {path.parent}/checkpoints/{storage.without_wildcards(method)} to train'
      ' it from the start'
    )
  new = b''.join(line for line, record in lines if record['method'] != method or record['step'] <= step)
  if path.exists() and path.read_bytes() != new:
    storage.write(path, new)
