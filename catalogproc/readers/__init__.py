"""Files of the outside world, as batches in our contracts.

formats/ reads tables (Parquet, CSV and ECSV, FITS, VOTable) and knows nothing of Gaia;
columns.py makes their values ours; xp.py and gaia.py know which columns those are;
chunks.py cuts the work, convert.py rewrites it. Nothing here needs torch or Dask.
"""
