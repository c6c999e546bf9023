"""What a power cut can leave of the near disk: a part of the states; `make crash-states` tries a million.

A failure names a state; `build/host/crash_states --verbose --replay ID` repeats it alone.
"""

from __future__ import annotations

import json

import native


def test_states_and_second_crashes() -> None:
    program = native.build("crash_states_asan")
    done = native.run(program, "--seed", 1, "--states", 12000, "--second", 4000, "--window", 48)
    assert done.returncode == 0, done.stdout + done.stderr
    facts = json.loads(done.stdout)
    assert facts["states"] == 12000 and facts["second_crashes"] >= 4000 and facts["failures"] == 0
    assert facts["adoptions"] > 100 and facts["lives"] >= 6


def test_a_state_replays() -> None:
    program = native.build("crash_states")
    for state in ("4:0:2:3:0.07,2.80", "2:3:5:1:-/c:1:1:0.fe", "1:2:4:f:-/k:0:3:1.70"):
        done = native.run(program, "--replay", state)
        assert done.returncode == 0 and "recovered: generation" in done.stdout, done.stdout + done.stderr
