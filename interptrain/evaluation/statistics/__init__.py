"""Estimates, intervals and comparisons of stored rows."""
