"""CMU-MOSI from MMSA's files: see `cmu_mosi.py`."""
