"""Files of the outside world, as Arrow batches in our contracts.

formats/ reads tables (Parquet, CSV and ECSV, FITS, VOTable) and knows nothing of Gaia; coerce.py
and units.py convert their values; column_lookup.py finds columns by name; xp.py, gaia_source.py,
surveys.py and lb24.py know which columns those are; chunks.py divides the work, convert.py rewrites
spectra as Parquet. Nothing here needs torch or Dask.
"""
