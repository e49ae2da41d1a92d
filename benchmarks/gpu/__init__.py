"""Parts of gpu_suite.py: what it measures, on what, and how the results are told."""
