"""The native programs of tests/host/native, a part of each: crash states, damage, the fuzzer's corpus.

The whole runs are `make crash-states` and `make fuzz`; the mutants of mutants.toml are tried with these here. A failing
crash state prints its id; `build/host/crash_states --verbose --replay ID` repeats it alone.
"""

from __future__ import annotations

import json

import native


def test_crash_states_and_second_crashes() -> None:
    program = native.build("crash_states_asan")
    done = native.run(program, "--seed", 0, "--states", 12000, "--second", 3000, "--window", 24)
    assert done.returncode == 0, done.stdout + done.stderr
    facts = json.loads(done.stdout)
    assert facts["states"] == 12000 and facts["second_crashes"] >= 3000 and facts["failures"] == 0
    assert facts["adoptions"] > 100 and facts["lives"] >= 6
    assert facts["recoveries_without_a_write"] > 10000


def test_a_state_replays() -> None:
    program = native.build("crash_states")
    for state in ("4:0:2:3:0.07,2.80", "2:3:5:1:-/c:1:1:0.fe", "1:2:4:f:-/k:0:3:1.70"):
        done = native.run(program, "--replay", state)
        assert done.returncode == 0 and "recovered: generation" in done.stdout, done.stdout + done.stderr


def test_damage_of_every_kind() -> None:
    done = native.run(native.build("damage_asan"), "--seed", 0, "--lives", 7)
    assert done.returncode == 0, done.stdout + done.stderr
    facts = json.loads(done.stdout)
    assert facts["cases"] > 1000 and facts["older_roots"] > 0 and facts["refused"] > 100


def test_corpus_of_the_fuzzer() -> None:
    inputs = sorted(native.CORPUS.iterdir())
    done = native.run(native.build("fuzz_store_asan"), *inputs)
    assert done.returncode == 0, done.stderr[-4000:]
    assert done.stdout == f"{len(inputs)} inputs\n"
