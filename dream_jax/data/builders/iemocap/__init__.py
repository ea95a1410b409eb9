"""IEMOCAP from the feature files of earlier work: see `iemocap.py`."""
