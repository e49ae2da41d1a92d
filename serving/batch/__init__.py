"""Batch jobs: very many pictures and videos -> one Parquet file of words, resumable. `clip4str batch`."""
