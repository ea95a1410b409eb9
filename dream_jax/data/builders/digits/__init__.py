"""Spoken and written digits: see `digits.py`."""
