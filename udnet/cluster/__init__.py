"""More than one machine: folders of pictures, and studies, on the workers of dask.distributed."""
