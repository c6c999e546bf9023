"""What can go wrong, as one line for a user: the thing, the reason, the remedy.

Everybody raises these; only cli.py prints them. Nothing else is ever caught there.
"""

from __future__ import annotations

from pathlib import Path


class RevenantError(Exception):
    """Base: `subject` (a file, a program) has a `reason`; `remedy` says what to do, or is empty."""

    def __init__(self, subject: str | Path, reason: str, remedy: str = "") -> None:
        super().__init__(f"{subject}: {reason}" + (f" ({remedy})" if remedy else ""))
        self.subject = str(subject)
        self.reason = reason
        self.remedy = remedy


class StoreError(RevenantError):
    """A store is damaged, foreign, truncated or of another version; nothing was changed."""


class BuildError(RevenantError):
    """A file that `make build` should have made is missing or makes no sense."""


class MachineError(RevenantError):
    """QEMU or nbdkit could not be started, or ended badly; `exit_status` is the command's.

    `details` are lines to show before the error's own: a panic's addresses as names. `blames_state`: what was
    resumed may be at fault, so that an older generation may help.
    """

    def __init__(
        self,
        subject: str | Path,
        reason: str,
        remedy: str = "",
        exit_status: int = 1,
        details: str = "",
        blames_state: bool = False,
    ) -> None:
        super().__init__(subject, reason, remedy)
        self.exit_status = exit_status
        self.details = details
        self.blames_state = blames_state


class RefusedError(MachineError):
    """The loader or the kernel would not start from these images: no program has run."""
