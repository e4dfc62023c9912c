"""The demo: data that a Python installation carries, small recipes for them, and a report of what was learned."""
