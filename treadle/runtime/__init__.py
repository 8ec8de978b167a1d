"""Where programs run: compiled kernels and their cache, the thread pool, memory, devices."""
