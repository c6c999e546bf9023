"""Crash states, all of them: what a power cut could leave on a disk, built from a recording and judged.

log.py reads what QEMU recorded, states.py builds and enumerates the states, judge.py says what each must be,
record.py drives the machines, changes.py the commands, command.py is `revenant crashtest`. twin.py compares memory
and registers of a machine that is cut off again and again with what was frozen. Only tests and people call them.
"""
