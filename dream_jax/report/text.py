"""What a terminal shows of results: of one run, or of a study."""

import errno
import os
import textwrap

from dream_jax.report import answer, page, study_tables, suite_page, tables
from dream_jax.report import results as read

# What a disk answers that may be read and not written.
_NOT_OURS = (errno.EROFS, errno.EACCES, errno.EPERM)


def show(workdir: str | os.PathLike) -> None:
  """Makes the page of a workdir anew and prints its tables; of one that cannot be written to only the tables.

  Raises:
    UserError: there are no results, or they cannot be read.
  """
  several = read.read_results(workdir).get('mode') == 'suite'
  try:
    written = (suite_page.write if several else page.write_report)(workdir)
  except OSError as error:
    if error.errno not in _NOT_OURS:
      raise
    written = f'not made again ({error.strerror}: {error.filename or workdir})'
  print((suite_page.as_text if several else as_text)(read.read_results(workdir)))
  print(f'report: {written}')


def as_text(results: dict, width: int = 120) -> str:
  """The tables of `results.json` in lines of at most `width` characters; the page has more of them."""
  results = read.defined(results)
  kind = results.get('data_kind', 'unknown')
  name, tested = results.get('dataset', '?'), results.get('num_test', '?')
  lines = [f'{name} ({kind} data), {tested} test samples, seeds: {tables.seeds_text(results)}\n']
  for part in _study(results) if read.regimes(results) else _run(results):
    if part is not None:
      lines.append(part if isinstance(part, str) else part.to_text(width))
  wrapped = [textwrap.fill(line, width, subsequent_indent='    ') for line in answer.as_text(results).splitlines()]
  lines.append('\n'.join((*wrapped, '')))
  return '\n'.join(lines)


def _run(results):
  yield tables.results_table(results)
  yield tables.native_table(results)
  yield from tables.comparison_tables(results)
  yield tables.contribution_table(results)
  yield tables.presence_table(results)
  yield tables.scores_table(results)
  yield tables.calibration_table(results)


def _study(results):
  """Results of every regime, then what the whole of it says."""
  regimes = read.regimes(results)
  for regime in regimes:
    yield f'=== training data: {regime} ===\n'
    yield tables.results_table(read.of_regime(results, regime))
  first = read.of_regime(results, regimes[0])
  yield tables.calibration_table(first)
  yield study_tables.balance_table(first)
  yield study_tables.fidelity_table(first)
  yield study_tables.cost_table(results)
  yield study_tables.settings_table(results)
  yield study_tables.selection_table(results)
  yield study_tables.standings_table(results)
