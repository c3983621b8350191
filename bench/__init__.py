"""Benchmark of catalogproc on this machine: `make bench`, about five minutes.

measure.py      clocks, medians, alternating comparisons; the classes of a row
machine.py      description of the machine and of library versions, without the host's name
kit.py          model, stars and input files that the rows use
reference.py    reference implementation: torch's own modules, one label at a time, as in
                astroNN_stars_foundation (Leung & Bovy 2024)
arithmetic.py   number of floating point operations per star
matrix.py predictor.py precision.py propagation.py parallax.py stages.py conversion.py
simulation.py learning.py run.py start.py gpu.py
                the rows, one module per family: names, targets and measurement
peak_memory.py  program that run.py starts to measure the memory of one chunk without the model
cost.py         hours and gigabytes for all spectra of DR3 and of DR4 at the measured rates
bench.py        runs the families, prints the table, writes bench.json
million.py      a run of a million stars (`make million`): log, counts, memory of workers
compare.py      comparison of two bench.json

A family is a module with TITLE, ROWS and measure(kit), which returns a figure for each row.
"""
