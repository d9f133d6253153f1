"""One file for each implementation that ijepa_step.py measures: the same training step out of its public modules."""
