"""CMU-MOSI as utterance features: see `mosi_utterance.py`."""
