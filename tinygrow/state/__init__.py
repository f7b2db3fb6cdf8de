"""State of long work on disk: saved as it goes on, read back after an interruption."""
