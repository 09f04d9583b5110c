"""The benchmarks of `ssl-adapt bench`: the time of this package beside that of other libraries."""
