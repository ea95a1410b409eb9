"""The package has a plan: rooms on floors, and imports that go down."""

import house


def test_every_room_has_its_floor():
  assert {house.room(name) for name in house.modules()} == {room for floor in house.FLOORS for room in floor}


def test_arrows_go_down():
  floor = {room: level for level, rooms in enumerate(house.FLOORS) for room in rooms}
  up = [said for (start, end), said in house.arrows().items() if floor[end] >= floor[start]]
  assert not up


def test_no_circles():
  assert not house.circles()


def test_few_loose_files():
  assert len(list(house.PACKAGE.glob('*.py'))) <= 6
