"""Spoken and written digits as spectrograms and images: see `av_digits.py`."""
