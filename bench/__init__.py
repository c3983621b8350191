"""How fast catalogproc is on this machine, and against what: `make bench`, about five minutes.

measure.py    clocks, medians, races; what a row is
machine.py    the machine and the versions, without its name
kit.py        the model, the stars and the files that the rows work on
plain.py      the plain reference: torch's own modules, label by label, as the direct peer does
arithmetic.py how many operations a star takes
matrix.py predictor.py propagation.py stages.py conversion.py simulation.py learning.py
run.py start.py gpu.py
              the rows, one file a family: what is measured, its target, and the measuring
cost.py       what 220 million stars take at the rates that were measured
bench.py      runs the families, prints the table, writes bench.json
compare.py    two bench.json side by side

A family is a module with TITLE, ROWS and measure(kit), which gives a figure for each row.
"""
