"""No field of the config takes a number that means nothing, and every refusal says which field it is about."""

from faults import overrides
from faults.tally import Tally


def test_every_field_with_every_value(root):
  tally = Tally('overrides')
  overrides.run(tally, root)
  assert not tally.failures, tally.table()
