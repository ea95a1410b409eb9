"""The list of mutations fits the code it is of; `benchmarks/mutants_of_code.py` runs it."""

import collections
import re

import pytest

from faults import code
from faults.code.mutation import Mutation


def test_every_mutation_still_changes_one_place_and_compiles(root):
  texts = {m.file: (root / m.file).read_text(encoding='utf-8') for m in code.ALL}
  for m in code.ALL:
    compile(m.mutated(texts[m.file]), m.file, 'exec')


def test_every_mutation_has_a_name_of_its_own_and_tests_that_are_there(root):
  counts = collections.Counter(m.name for m in code.ALL)
  assert [name for name, count in counts.items() if count > 1 or ',' in name] == []
  texts = {}
  for m in code.ALL:
    assert m.tests
    for test in m.tests:
      file, _, name = test.partition('::')
      if file not in texts:
        texts[file] = (root / 'tests' / file).read_text(encoding='utf-8')
      assert not name or re.search(rf'^def {name.partition("[")[0]}\(', texts[file], re.MULTILINE), f'{m.name}: {test}'


def test_a_mutation_whose_text_is_gone_or_there_twice_is_refused():
  for text in ('a = 2', 'a = 1; b = a = 1'):
    with pytest.raises(ValueError, match='expected once'):
      Mutation('one', 'file.py', 'a = 1', 'a = 3', ()).mutated(text)
