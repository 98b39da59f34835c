"""The project's benchmarks: `make perf` or `python -m tests.perf`.

One module per group, each with `measure(scratch, device, quick)`.
"""
