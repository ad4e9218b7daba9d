"""The log of predictions and outcomes, as Parquet parts in a folder or in S3."""
