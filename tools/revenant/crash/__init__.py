"""Crash states, all of them: what a power cut could leave on a disk, built from a recording and judged.

log.py reads what QEMU recorded, states.py builds and enumerates the states, judge.py says what each must be,
record.py drives the machines, command.py is `revenant crashtest`. Only tests and people call it.
"""
