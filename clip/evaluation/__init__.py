"""Predictions per missing case, their scores over test cases, bootstrap intervals, and costs."""
