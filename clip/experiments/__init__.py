"""Experiments such as the paper's tables and figures: YAML specs, their runs, tables and reports."""
