"""The former name of `python -m dream_jax.datacheck`, which it still runs."""

import runpy

if __name__ == '__main__':
  runpy.run_module('dream_jax.datacheck', run_name='__main__')
