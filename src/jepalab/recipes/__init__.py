"""Recipes: functions whose keyword arguments are the configuration and whose return value is a complete run."""
