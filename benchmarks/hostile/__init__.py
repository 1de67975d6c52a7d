"""What `benchmarks.fuzz` and tests/hostile/test_fuzz.py throw at every reader of files."""
