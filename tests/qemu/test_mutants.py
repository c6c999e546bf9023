"""The mutation gate: both lists fit the sources, and a few quick mutants are found. `make mutate` tries them all.

Called by: pytest.
"""

from __future__ import annotations

import pytest
from revenant.crash import mutate


def test_lists_fit_the_sources() -> None:
    """`mutants` says which text is not there exactly once; nothing is listed twice."""
    listed = mutate.mutants()
    assert len(listed) > 200 and len({(m.file, m.text, m.by) for m in listed}) == len(listed)
    assert all(mutant.equivalent or mutant.tests for mutant in listed)


def test_quick_ones_are_found() -> None:
    quick = [mutant for mutant in mutate.mutants() if mutant.quick]
    verdicts = mutate.try_all(quick, 1, print, sound=False)
    assert len(verdicts) >= 4 and {verdict.outcome for verdict in verdicts} == {mutate.FOUND}


@pytest.mark.slow
def test_all_are_found() -> None:
    verdicts = mutate.try_all(mutate.mutants(), 2, print)
    assert [verdict.why for verdict in verdicts if verdict.outcome == mutate.SURVIVED] == []


def test_a_mutant_without_its_place_is_told() -> None:
    mutant = mutate.Mutant("nothing", "mm/space.c", "no such text", "", ())
    assert "occurs 0 times" in mutant.fault()
