"""How long our code takes beside what one would use without it: what `scripts/bench.py` runs."""
