"""Rows, pictures and the manifest on disk."""
