"""One method against every other: paired differences under every protocol, corrected for the number of opponents."""

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from dream_jax.evaluation.evaluate import Row
from dream_jax.evaluation.intervals import holm, paired_comparison


def compare(
  reference: str, rows: Mapping[str, Row], metric: str, *, key: Callable[[str], str] = str, **labels: str
) -> list[dict[str, Any]]:
  """The reference against every other row under every protocol.

  P values are corrected (Holm) over the opponents under one protocol: each protocol asks a question of its own, and
  "is the reference better than any of them" is what many opponents make easier to answer by luck.

  Args:
    reference: name of a row; without such a row there is nothing to compare.
    rows: name -> row.
    metric: what their sample scores are of.
    key: name of a row -> how the entry names it.
    labels: further fields of every entry.

  Returns:
    {'a', 'b', 'protocol', 'metric', 'difference', 'ci95', 'p', 'p_holm', **labels} each, as `results.json` holds them.
  """
  if reference not in rows:
    return []
  found = []
  for protocol, scores in rows[reference].sample_scores.items():
    family = []
    for name, row in rows.items():
      if name == reference or protocol not in row.sample_scores:
        continue
      c = paired_comparison(scores, row.sample_scores[protocol])
      what = {'a': key(reference), 'b': key(name), **labels, 'protocol': protocol, 'metric': metric}
      family.append({**what, 'difference': c.difference, 'ci95': c.ci95, 'p': c.p})
    testable = [entry for entry in family if entry['p'] is not None and np.isfinite(entry['p'])]
    for entry, p in zip(testable, holm([entry['p'] for entry in testable]), strict=True):
      entry['p_holm'] = p
    found += family
  return found
