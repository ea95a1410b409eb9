"""The engine: does the runs of a plan one after another, all seeds of a method in one program, none of them twice.

WORKDIR/config.json                       what the last command asked for
WORKDIR/runs/METHOD@REGIME-KEY/           a run, whole in itself: see `workdir.run_folders`
WORKDIR/results.json, report.html         everything the last command asked for, with comparisons

A run is keyed by a hash of the data, the training regime, the method's own settings, the budget, the seeds and the
sources it is made by. It is finished when its sealed results are there: they are written last. A killed command goes on
in the middle of the run that was under way; a changed method is run again, and the others are not. What is only asked
under other protocols is evaluated again and not trained.
"""

import dataclasses
import time
from collections.abc import Mapping
from typing import Any

from dream_jax.config.recipe import Recipe
from dream_jax.data.datasets import Dataset
from dream_jax.data.prepare import prepare
from dream_jax.experiments import one_run
from dream_jax.experiments.units import Plan, Unit, run_key
from dream_jax.experiments.workbench import Workbench
from dream_jax.models.registry import find_method
from dream_jax.parallel import hosts
from dream_jax.training.programs import Programs
from dream_jax.workdir import method_files, run_folders, storage
from dream_jax.workdir.checkpoints import checkpoint_folder
from dream_jax.workdir.method_files import Finished


@dataclasses.dataclass(frozen=True)
class Done:
  """A finished run of a plan."""

  unit: Unit
  folder: str
  key: str
  finished: Finished


class Engine:
  """Makes what a workdir lacks of a plan."""

  def __init__(
    self,
    plan: Plan,
    recipe: Recipe,
    dataset: Dataset,
    config: Any,
    workdir: str,
    compiled: dict[Any, Programs] | None = None,
  ):
    """Nothing is made yet.

    Args:
      plan: what to make.
      recipe: how.
      dataset: on what.
      config: the ConfigDict that the recipe came from: every run keeps it.
      workdir: where.
      compiled: programs for data of an equal spec; what is compiled here is added.
    """
    self._plan, self._recipe, self._dataset = plan, recipe, dataset
    self._config, self._workdir = config, workdir
    self._compiled: dict[Any, Programs] = {} if compiled is None else compiled
    self._bench: tuple[str, Workbench] | None = None
    self._chosen: dict[str, dict[str, float]] = {}

  def make(self) -> None:
    """Makes or completes every run of the plan.

    Raises:
      UserError: a run that is there is damaged, or one cannot be trained.
    """
    self._read_all()  # Damage is told before hours of training, not after.
    progress = _Progress(self._plan)
    for unit in self._plan.units:
      key = self.key(unit)
      folder = self._folder(unit, key)
      start = time.perf_counter()
      state: dict[str, Any] | None = hosts.agree(lambda u=unit, k=key, f=folder: self._state(u, k, f))
      if state is None:
        facts = self._do(unit, key, folder, start)
        state = {'as_asked': True, 'chosen': facts.get('chosen')}
        progress.done(unit, facts)
      elif not state['as_asked']:
        self.evaluate(unit, folder, key)
        progress.passed(unit, 'evaluated')
      else:
        progress.passed(unit, 'finished before')
      self._drop_rest(unit, folder)
      if unit.search:
        self._chosen[unit.method] = state['chosen']

  def done(self) -> list[Done]:
    """Every run of the plan as it lies on the disk, for the process that reports.

    Raises:
      UserError: one is not there, or it is damaged.
    """
    found = []
    for unit in self._plan.units:
      key = self.key(unit)
      folder = self._folder(unit, key)
      finished = method_files.read_method(folder, unit.method, run=key)
      if unit.search:
        self._chosen[unit.method] = finished.facts['chosen']
      found.append(Done(unit, folder, key, finished))
    return found

  def evaluate(self, unit: Unit, folder: str, key: str) -> Finished:
    """Evaluates a finished run again, as the plan asks for it now."""
    method = find_method(unit.method)
    rows = one_run.evaluate_again(method, self._workbench(unit.regime), self._plan, folder, key)
    before = hosts.agree(lambda: _facts_of(folder, unit.method, key))
    if hosts.is_main():
      self._write(unit, folder, key, before, rows)
    return Finished(before, rows)

  def key(self, unit: Unit) -> str:
    """The key of a run, once the search of its method is known."""
    chosen = {} if unit.search else self._chosen.get(unit.method, {})
    return run_key(unit, self._plan, self._recipe, self._dataset.fingerprint, chosen)

  def _folder(self, unit: Unit, key: str) -> str:
    return run_folders.run_folder(self._workdir, unit.method, 'search' if unit.search else unit.regime, key)

  def _read_all(self) -> None:
    """Reads whatever is finished, as far as keys are known before searches are."""
    chosen = dict(self._chosen)
    for unit in self._plan.units:
      if not unit.search and self._plan.search.points and unit.method not in self._chosen:
        continue
      key = self.key(unit)
      folder = self._folder(unit, key)
      state = hosts.agree(lambda unit=unit, key=key, folder=folder: self._state(unit, key, folder))
      if unit.search and state is not None:
        self._chosen[unit.method] = state['chosen']
    self._chosen = chosen

  def _state(self, unit: Unit, key: str, folder: str) -> dict[str, Any] | None:
    """What is known of a finished run; None of one that is not.

    Raises:
      UserError: it is damaged or of another run.
    """
    if not method_files.is_finished(folder, unit.method):
      return None
    finished = method_files.read_method(folder, unit.method, run=key)
    asked = unit.search or one_run.as_asked(finished.rows, find_method(unit.method), self._plan, self._recipe)
    return {'as_asked': asked, 'chosen': finished.facts.get('chosen')}

  def _workbench(self, name: str) -> Workbench:
    """Of one regime; the one before is let go, programs stay."""
    if self._bench is None or self._bench[0] != name:
      self._bench = None
      prepared = prepare(self._dataset, train_missing=self._plan.regimes[name], seed=self._recipe.seed)
      bench = Workbench(self._recipe, prepared, self._compiled)
      said = bench.feed.describe()
      print(said if self._plan.mode == 'train' else f'{name}: {said}', flush=True)
      self._bench = (name, bench)
    return self._bench[1]

  def _do(self, unit: Unit, key: str, folder: str, start: float) -> dict[str, Any]:
    """Facts of one run; its results are on the disk when this returns."""
    method, bench = find_method(unit.method), self._workbench(unit.regime)
    if others := hosts.agree(lambda: run_folders.others(folder)):
      said = 'settings, data, sources or versions of libraries have changed since'
      print(f'{self._plan.title(unit)}: {", ".join(others)} is not used, {said}', flush=True)
    if method.module is not None and not unit.search:
      hosts.agree(lambda: method_files.write_predictor_parts(folder, bench.prepared, run=key))
    if unit.search:
      facts, rows = one_run.search(method, bench, self._plan, folder, key), []
    else:
      facts, rows = one_run.train(method, bench, self._plan, folder, key, self._chosen.get(unit.method, {}))
    facts['wall_seconds'] = time.perf_counter() - start
    if hosts.is_main():
      self._write(unit, folder, key, facts, rows)
    return facts

  def _write(self, unit: Unit, folder: str, key: str, facts: Mapping[str, Any], rows: Any) -> None:
    of = {'regime': unit.regime, 'search': unit.search, 'config': self._config}
    method_files.write_method(folder, unit.method, facts, rows, **of, run=key)

  def _drop_rest(self, unit: Unit, folder: str) -> None:
    """Removes what a finished run needs no more; before that a kill would go on from it.

    What training resumes from is several times the size of what it selected; a search selects nothing that stays.
    """
    if hosts.is_main():
      rest = f'{checkpoint_folder(folder, unit.method)}/state'
      storage.remove_folder(f'{folder}/checkpoints' if unit.search else rest)


def _facts_of(folder: str, method: str, key: str) -> dict[str, Any]:
  return method_files.read_method(folder, method, run=key).facts


class _Progress:
  """A line a finished run: what it took, how far the plan is, and when it ends."""

  def __init__(self, plan: Plan):
    self._plan, self._left, self._total = plan, list(plan.units), len(plan.units)
    self._start = time.monotonic()
    self._cost: dict[tuple[str, bool], float] = {}

  def passed(self, unit: Unit, said: str) -> None:
    """A run that was not trained, and why."""
    self._left.remove(unit)
    self._print(unit, said)

  def done(self, unit: Unit, facts: Mapping[str, Any]) -> None:
    """A run that was."""
    self._left.remove(unit)
    self._cost[unit.method, unit.search] = facts['wall_seconds']
    spent = f'compiled in {facts["compile_seconds"]:.1f} s, trained in {facts["train_seconds"]:.1f} s'
    if not unit.search:
      spent += f', evaluated in {facts["evaluate_seconds"]:.1f} s'
    self._print(unit, f'{spent}; {self._ahead()}')

  def _print(self, unit: Unit, said: str) -> None:
    print(f'[{self._total - len(self._left)}/{self._total}] {self._plan.title(unit)}: {said}', flush=True)

  def _ahead(self) -> str:
    # A method costs about what it cost under another regime, less its compilation; an unknown one the mean.
    known = list(self._cost.values())
    left = sum(self._cost.get((u.method, u.search), sum(known) / len(known)) for u in self._left)
    spent = time.monotonic() - self._start
    return f'{_clock(spent)} so far' + (f', about {_clock(left)} left' if self._left else ', done')


def _clock(seconds: float) -> str:
  minutes, rest = divmod(round(seconds), 60)
  return f'{minutes // 60}:{minutes % 60:02}:{rest:02}' if minutes >= 60 else f'{minutes}:{rest:02}'
