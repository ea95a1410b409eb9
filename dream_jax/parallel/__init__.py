"""Where arrays live: devices and their mesh."""
