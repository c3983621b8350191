"""A run's folder: manifest, parts, receipts, provenance, verification, synchronisation."""
