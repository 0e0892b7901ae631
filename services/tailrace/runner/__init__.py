"""The runner: hosts that carry out what the engine decides."""
