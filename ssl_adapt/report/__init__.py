"""Networks as tables, JSON and drawings."""
