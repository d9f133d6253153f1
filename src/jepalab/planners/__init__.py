"""Planners: they search for the actions of least cost, whatever the cost is."""
