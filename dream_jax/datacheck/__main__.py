"""`python -m dream_jax.datacheck DIR`."""

import sys

from dream_jax.datacheck.check import main
from dream_jax.machine.exit_codes import end_at_interrupt

if __name__ == '__main__':
  end_at_interrupt()
  sys.exit(main())
