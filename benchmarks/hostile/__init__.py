"""What `benchmarks.fuzz` and tests/test_fuzz.py throw at every reader of files."""
