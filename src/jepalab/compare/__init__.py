"""Comparing objectives: matched runs over seeds, their statistics, and the contrasts declared beforehand."""
