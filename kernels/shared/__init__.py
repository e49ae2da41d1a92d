"""What operators share: checks of arguments, launching, tiles, pieces of kernels, variants ahead of time, timing."""
