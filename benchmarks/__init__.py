"""What groklab claims of its speed, measured: one script per claim.

    python -m benchmarks --record            all of them, into docs/performance.md (`make bench`)
    python -m benchmarks scaling cold_start  some of them
    python -m benchmarks.scaling --quick     one of them, with settings that only show that it runs

Each script measures its variants in turn, round after round, and gives ratios of medians: what else the machine does
then meets every variant alike. Times include the evaluation of the held-out examples at the cadence stated.

    measure.py      taking turns, all devices at once        products.py   the matrix products inside a program
    report.py       claims, tables, docs/performance.md      comparison.py groklab beside eager PyTorch
    ours.py         groklab's engine                         eager.py      the eager PyTorch loops
"""
