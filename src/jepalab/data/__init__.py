"""Where batches come from. Every stream is a pure function of (seed, split, step)."""
