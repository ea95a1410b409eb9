"""CH-SIMS from MMSA's files: see `ch_sims.py`."""
