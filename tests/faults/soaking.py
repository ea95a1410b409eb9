"""What long runs by hand print on their way."""

import contextlib
import threading
from collections.abc import Iterator

from faults.tally import Tally

_SECONDS = 30


@contextlib.contextmanager
def progress(tally: Tally, column: str, wanted: int) -> Iterator[None]:
  """A line of progress now and then, as long as the block lasts."""
  over = threading.Event()

  def tell() -> None:
    while not over.wait(_SECONDS):
      done, failures = sum(tally.counts[column].values()), len(tally.failures)
      print(f'{done}/{wanted} {column}, {failures} failures, {tally.hours * 60:.1f} min', flush=True)

  teller = threading.Thread(target=tell, daemon=True)
  teller.start()
  try:
    yield
  finally:
    over.set()
    teller.join()
