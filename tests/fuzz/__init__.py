"""A fuzzer of all tools: `python -m tests.fuzz --seed 0 --number 2000 --minutes 60`."""
