"""Loss terms as plain functions, each defined once."""
