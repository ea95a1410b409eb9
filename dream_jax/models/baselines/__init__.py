"""The controls: what a method has to beat, sharing DREAM's encoders, trainer and budget."""
