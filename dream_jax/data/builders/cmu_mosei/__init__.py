"""CMU-MOSEI from the feature files of MMSA: see `cmu_mosei.py`."""
