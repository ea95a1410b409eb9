"""`python -m dream_jax.datacheck DIR`."""

import sys

from dream_jax.machine.interrupts import end_at_interrupt

if __name__ == '__main__':
  end_at_interrupt()  # The imports take their time, too.

  from dream_jax.datacheck.check import main

  sys.exit(main())
