"""Environments: vectorised over states, and adapters to and from gymnasium."""
