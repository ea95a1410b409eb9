"""Generated data in the shapes of CMU-MOSEI: see `mosei_standin.py`."""
