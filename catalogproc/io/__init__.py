"""Atomic writes, locks, hashes, object storage, and Parquet with its metadata."""
