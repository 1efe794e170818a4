"""Everything that can go wrong, as one tree.

    KlingError                a sentence for the person who pressed Run
    ├── InputError            an input has to change; nothing was uploaded or sent
    ├── AccountError          no token, or RunComfy does not accept it; nothing was spent
    ├── HostingError          a still or video could not be made reachable; nothing was submitted
    ├── LedgerError           the record of what was paid cannot be kept; nothing was submitted
    ├── BudgetError           the submission could pass the session's budget; nothing was submitted
    ├── RefusedError          RunComfy clearly refused the submission; nothing was spent
    ├── UncertainError        the submission may have been accepted and charged
    ├── WaitTimeoutError      the request still runs; running the node again takes it up
    ├── UnavailableError      RunComfy no longer shows this request or its file
    ├── FailedError           RunComfy reports that the generation failed
    ├── CancelledRequestError RunComfy reports that the request was cancelled
    ├── NoOutputError         the request succeeded, but its result names no video
    ├── DownloadError         the clip exists at RunComfy but could not be brought here
    └── SaveError             the clip could not be written to disk

A message says what happened, whether money was or may have been spent, the
request id where there is one, and what to do next. It never holds a token.
"""

from __future__ import annotations


class KlingError(Exception):
    """Base of every error this pack raises on purpose."""


class InputError(KlingError):
    pass


class AccountError(KlingError):
    pass


class HostingError(KlingError):
    pass


class LedgerError(KlingError):
    pass


class BudgetError(KlingError):
    pass


class RefusedError(KlingError):
    pass


class UncertainError(KlingError):
    pass


class WaitTimeoutError(KlingError):
    pass


class UnavailableError(KlingError):
    pass


class FailedError(KlingError):
    pass


class CancelledRequestError(KlingError):
    pass


class NoOutputError(KlingError):
    pass


class DownloadError(KlingError):
    pass


class SaveError(KlingError):
    pass
