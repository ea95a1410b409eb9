"""Generated samples whose modalities have a known strength: see `synthetic.py` and `generate.py`."""
