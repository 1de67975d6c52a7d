"""Speed and memory, always as ratios of two things measured in one run."""
