"""Checkpoints of every published layout, in and out, without ever running what a pickle asks for."""
