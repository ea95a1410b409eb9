"""Claims of the documentation are what their evidence says, and a claim that is not is found."""

import copy
import json
import subprocess
import sys

import pytest

from dream_jax.errors import UserError

_CLAIM = {
  'text': 'DREAM is ahead.',
  'holds': 'better',
  'evidence': 'x',
  'a': 'dream',
  'b': ['concat', 'late'],
  'protocols': ['complete'],
}
_EVIDENCE = {
  'comparisons': [
    {'a': 'dream', 'b': b, 'protocol': 'complete', 'difference': 0.02, 'ci95': [0.01, 0.03], 'verdict': 'better'}
    for b in ('concat', 'late')
  ],
  'mean_rank': {'dream': {'value': 1.2, 'ci95': [1.0, 1.5]}, 'late': {'value': 2.0, 'ci95': [1.6, 2.4]}},
}


@pytest.fixture(scope='module')
def claims(root):
  sys.path.insert(0, str(root / 'benchmarks'))
  try:
    import claims
  finally:
    sys.path.pop(0)
  return claims


def test_the_page_is_what_the_evidence_says_and_supports_every_claim(root):
  process = subprocess.run(
    [sys.executable, 'benchmarks/claims.py', '--check'], cwd=root, capture_output=True, text=True, check=False
  )
  assert process.returncode == 0, process.stdout + process.stderr


def test_a_claim_holds_as_long_as_all_of_it_does(claims):
  assert claims.judged(_CLAIM, _EVIDENCE) == (
    True,
    'concat, complete: +2.0 [+1.0, +3.0]; late, complete: +2.0 [+1.0, +3.0]',
  )
  for verdict, ways in (
    ('equivalent', {'not worse', 'equivalent'}),
    ('undecided', {'not worse'}),
    ('worse', set()),
    ('better', {'better', 'not worse'}),
  ):
    evidence = copy.deepcopy(_EVIDENCE)
    evidence['comparisons'][1]['verdict'] = verdict
    claim = {**_CLAIM, 'b': ['late']}
    assert {
      w for w in ('better', 'not worse', 'equivalent') if claims.judged({**claim, 'holds': w}, evidence)[0]
    } == ways
    if verdict != 'better':
      assert not claims.judged(_CLAIM, evidence)[0]
      assert claims.judged({**_CLAIM, 'but': 1}, evidence)[0]


def test_the_best_rank_is_apart_from_the_second(claims):
  claim = {**_CLAIM, 'holds': 'best rank'}
  assert claims.judged(claim, _EVIDENCE) == (True, 'dream 1.2 [1.0, 1.5], late 2.0 [1.6, 2.4]')
  assert not claims.judged({**claim, 'a': 'late'}, _EVIDENCE)[0]
  evidence = copy.deepcopy(_EVIDENCE)
  evidence['mean_rank']['late']['ci95'][0] = 1.4
  assert not claims.judged(claim, evidence)[0]


@pytest.mark.parametrize(
  ('change', 'message'),
  [({'b': ['lost']}, 'compares dream with no lost under complete'), ({'holds': 'good'}, "holds is 'good'; expected")],
)
def test_what_the_evidence_does_not_say_is_no_support(claims, change, message):
  with pytest.raises(UserError, match=message):
    claims.judged({**_CLAIM, **change}, _EVIDENCE)


def test_evidence_has_no_samples(root):
  for path in (root / 'docs' / 'evidence').glob('*.json'):
    assert path.stat().st_size < 300_000
    assert 'sample_scores' not in json.loads(path.read_text())
