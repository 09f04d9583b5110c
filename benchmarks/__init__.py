"""How long our code takes beside what one would use without it: what `ssl-adapt bench` runs."""
