"""Whose fault it is. Imports nothing of ours.

A rejected radiograph is a value (`domain.Rejected`), not an exception. No message here ever carries
patient data: it may end in a log line.
"""

from __future__ import annotations

from collections.abc import Sequence


class CxrNodeError(Exception):
    """Root of all errors that this package raises on purpose."""


class ConfigError(CxrNodeError):
    """The operator's: the node refuses to start (exit 78), one line per mistake."""

    def __init__(self, mistakes: str | Sequence[str]) -> None:
        self.mistakes = [mistakes] if isinstance(mistakes, str) else list(mistakes)
        super().__init__("\n".join(self.mistakes))


class DataError(CxrNodeError):
    """The user's training or evaluation data: one clear sentence, exit 2, before any work starts."""


class InstanceError(CxrNodeError):
    """This SOP Instance's: never retried by itself."""


class ContradictionError(InstanceError):
    """Its data set is not the object that it was announced as: 0xA900 while receiving."""


class UndecodableError(InstanceError):
    """The pixel data cannot be turned into stored values."""


class UnsoundResultError(InstanceError):
    """Our own check refuses what was made of it; nothing of it is stored or sent.

    The bug is ours, but it is this instance's all the same: the same bytes give the same results, so a retry cannot
    help, and a `ModelError`, which gives the job back and stops the worker, would let one odd header stop everybody.
    """


class ModelError(CxrNodeError):
    """Our profile's or runtime's: the job goes back, the worker stops, the operator is woken."""


class ForeignProfileError(ModelError):
    """The profile was written by another version of this program: exit 2 where a user named it."""


class ResourceError(CxrNodeError):
    """This machine's: the job goes back with a delay; 0xA700 while receiving."""


class LedgerLostError(CxrNodeError):
    """The ledger is damaged, or no longer the one that was opened: the process ends, its successor mends.

    No `ResourceError`, for waiting cannot help; 0xA700 while receiving.
    """


class DeliveryError(CxrNodeError):
    """The destination's.

    Attributes
    ----------
    permanent : True where a repeat cannot help (no common presentation context, refused SOP class):
        the delivery is DEAD at once. False: it is tried again on schedule.
    status : the DIMSE status, or Failure Reason, that said so; None where none came.
    answered : the destination answered, by a DIMSE status or otherwise.
    after_s : it asked to be left alone for so long (HTTP Retry-After); None: it did not say.
    """

    def __init__(
        self,
        message: str,
        *,
        permanent: bool,
        status: int | None = None,
        answered: bool | None = None,
        after_s: float | None = None,
    ) -> None:
        self.permanent = permanent
        self.status = status
        self.after_s = after_s
        self.answered = status is not None if answered is None else answered
        super().__init__(message)


class UnreachableError(DeliveryError):
    """There is no connection to the destination: nothing was sent, and no object is to blame."""

    def __init__(self, message: str, after_s: float | None = None) -> None:
        super().__init__(message, permanent=False, after_s=after_s)
