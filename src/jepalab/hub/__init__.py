"""Trained encoders in and out: folders that make the same module again, and those that transformers reads."""
