"""What drives the chunks: the only part that knows Dask."""
