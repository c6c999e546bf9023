"""The resume list: which pages a start touches, as the machine names them itself (option `record`, kernel/README.md).

Used by: running.py (`run --record`), the benchmarks.
"""

from __future__ import annotations

import re

from revenant.format import PageKey


def touched(voice: str) -> list[PageKey]:
    """The pages that a recording machine has named so far, in their order, each once."""
    found = re.findall(r"touched (\d+):(\d+)$", voice, re.MULTILINE)
    return list(dict.fromkeys(PageKey(int(space), int(page)) for space, page in found))
