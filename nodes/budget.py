"""What this session may spend: reserved before a submission, so that parallel nodes cannot pass it together."""

from __future__ import annotations

import threading

from .errors import BudgetError


class SessionBudget:
    """The spending of one ComfyUI session, estimated until RunComfy reports it. In USD."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._spent: dict[str, float] = {}

    def reserve(self, generation: str, estimate: float | None, limit: float | None) -> None:
        """Set an estimate aside for a generation. Raises BudgetError where that could pass the limit."""
        with self._lock:
            spent = sum(self._spent.values())
            if limit is not None and estimate is None:
                raise BudgetError(
                    "The price of this clip is not known and a session budget is set "
                    f"(RUNCOMFY_KLING_SESSION_BUDGET_USD = {limit:g}), so nothing was submitted. "
                    "Try again later, or unset the budget."
                )
            if limit is not None and spent + (estimate or 0) > limit:
                raise BudgetError(
                    f"This clip may cost {estimate:.2f} USD and {spent:.2f} USD of the session's budget of {limit:g} USD "
                    "are spent or reserved, so nothing was submitted. Raise RUNCOMFY_KLING_SESSION_BUDGET_USD, or "
                    "restart ComfyUI to begin a new session."
                )
            self._spent[generation] = self._spent.get(generation, 0.0) + (estimate or 0)

    def release(self, generation: str, estimate: float | None) -> None:
        """Give an estimate back: nothing was accepted, or it was cancelled."""
        with self._lock:
            self._spent[generation] = max(0.0, self._spent.get(generation, 0.0) - (estimate or 0))

    def settle(self, generation: str, estimate: float | None, cost_usd: float | None) -> None:
        """Replace an estimate by what RunComfy reports; an estimate stays where it reports nothing."""
        if cost_usd is not None:
            with self._lock:
                self._spent[generation] = max(0.0, self._spent.get(generation, 0.0) - (estimate or 0)) + cost_usd
