"""``python -m benchmarks.gpu``: prove that trainings are right on a GPU, and measure how fast, in eight minutes.

Each part runs in a process of its own with a time limit, and writes each result at once as a line of JSON, so that
nothing is lost when a part hangs, crashes or runs out of time (docs/performance.md). It needs no Ray, and on a machine
without a GPU it runs on the CPU, in small.
"""
