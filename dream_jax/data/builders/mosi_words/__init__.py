"""CMU-MOSI aligned to words: see `mosi_words.py`."""
