"""A suite: one study over several data sets, and what they say together.

WORKDIR/DATA/                    the study of a data set, a workdir like any other
WORKDIR/DATA/division-K/         the studies of a small one, which is divided anew several times
WORKDIR/results.json             what all of them say
WORKDIR/report.html              the same to look at

A suite has no state of its own: a killed one goes on in the study that was under way, and another data set or method
makes only what is new.
"""

import copy
import os
import re
from typing import Any, NamedTuple

from ml_collections import ConfigDict

from dream_jax.config.recipe import Recipe, recipe_from_config
from dream_jax.errors import UserError
from dream_jax.evaluation.metrics import primary_metric
from dream_jax.experiments import experiment
from dream_jax.experiments.suite_results import assemble
from dream_jax.experiments.units import study_plan
from dream_jax.experiments.workbench import load_raw
from dream_jax.machine import paths
from dream_jax.parallel import hosts
from dream_jax.report import results as read
from dream_jax.report import suite_page
from dream_jax.workdir import method_files, sealed
from dream_jax.workdir.config_guard import alone, check_config, run_identity, write_config


class Member(NamedTuple):
  """A data set of a suite.

  Attributes:
    name: what tables and folders call it.
    config: of its study, with the division that it has.
  """

  name: str
  config: Any


def study(config: Any, workdir: str) -> None:
  """A study of the config's data set, or of all of its suite.

  Raises:
    UserError: something in the config, the data or a workdir is not as it should be.
  """
  recipe = recipe_from_config(config)
  members = members_of(recipe, config)
  if not members:
    experiment.study(config, workdir)
    return
  run = run_identity('suite', config, 'several', ignore=())
  with alone(workdir):
    check_config(workdir, config, mode='suite', free=None)
    plans = _plans(members, recipe)  # All are looked at before the first is trained.
    if hosts.is_main():
      write_config(workdir, config, run)
    found: dict[str, list[dict[str, Any]]] = {}
    for member, divisions in plans:
      compiled: dict[Any, Any] = {}  # Most divisions have splits of the same sizes, so one compilation does for all.
      for division in divisions:
        place = os.path.join(workdir, member.name, *([f'division-{division}'] if division else []))
        print(f'== {member.name}' + (f', division {division} of {len(divisions)}' if division else ''), flush=True)
        own = _of_division(member.config, division, recipe.num_seeds, len(divisions))
        experiment.study(own, place, quiet=True, compiled=compiled)
        found.setdefault(member.name, []).append(read.read_results(place) if hosts.is_main() else {})
    if not hosts.is_main():
      return
    results = assemble(found, recipe.suite.margin, config)
    sealed.write(f'{workdir}/{method_files.RESULTS_FILE}', results, run=run)
    report = suite_page.write(workdir)
  print(suite_page.as_text(results))
  print(f'results: {workdir}/results.json')
  print(f'report: {report}', flush=True)


def members_of(recipe: Recipe, config: Any) -> list[Member]:
  """The data sets of a suite; none where the config names none.

  Raises:
    UserError: two would have one name, or the config names a data set beside them.
  """
  s, members = recipe.suite, []
  for name in s.data:
    own = _config_of(config, name, None, s.options.get(name, {}))
    members.append(Member(_as_name(name), own))
  for folder in s.folders:
    folder = paths.expanded(folder)
    own = _config_of(config, 'folder', folder, {})
    members.append(Member(_as_name(os.path.basename(os.path.normpath(folder))), own))
  if members and recipe.data.division:
    raise UserError(f'config.data.division is {recipe.data.division}; a suite divides by config.suite.divisions: set 0')
  names = [member.name for member in members]
  for name in names:
    if names.count(name) > 1:
      raise UserError(f'config.suite names two data sets {name!r}; expected names that differ: rename a folder')
  return members


def _plans(members: list[Member], recipe: Recipe) -> list[tuple[Member, list[int]]]:
  """The numbers of the divisions of every data set; [0] for one that keeps its own.

  Raises:
    UserError: a data set cannot be read, its study cannot be made, or two are measured by what cannot be averaged.
  """
  s, plans, metrics = recipe.suite, [], {}
  for member in members:
    own = recipe_from_config(member.config)
    dataset = load_raw(own)
    study_plan(own, dataset.spec)
    metric, higher = primary_metric(dataset.spec)
    # Shares of samples go together, whatever they count; anything else only with its like.
    share = higher and read.metric_range(metric) == (0.0, 1.0)
    metrics.setdefault('a share' if share else metric, (member.name, metric))
    small = s.divisions > 1 and sum(len(split) for split in dataset.splits.values()) < s.divided_below
    plans.append((member, list(range(1, s.divisions + 1)) if small else [0]))
  if len(metrics) > 1:
    (one, metric), (other, another), *_ = metrics.values()
    raise UserError(
      f'{one} is measured by {metric} and {other} by {another}, which cannot be averaged; expected data sets of one'
      ' kind of target: make a suite of each'
    )
  return plans


def _config_of(config: Any, name: str, folder: str | None, options: Any) -> Any:
  """The config of one study of a suite."""
  own = copy.deepcopy(config)
  with own.unlocked():
    own.suite.data, own.suite.folders, own.suite.options = (), (), ConfigDict()
    own.data.name, own.data.options = name, ConfigDict(options)
    if folder is not None:
      own.data.dir = folder
  return own


def _of_division(config: Any, division: int, num_seeds: int, divisions: int) -> Any:
  own = copy.deepcopy(config)
  own.data.division = division
  own.num_seeds = max(1, num_seeds // divisions) if division else num_seeds
  return own


def _as_name(text: str) -> str:
  return re.sub(r'[^A-Za-z0-9_.]+', '-', text).strip('-.') or 'data'
