"""Data to checkpoint: words real and rendered, permuted sequence modelling, the command that trains."""
