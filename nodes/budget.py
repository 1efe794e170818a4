"""What this session may spend: reserved before a submission, so that parallel nodes cannot pass it together."""

from __future__ import annotations

import threading

from .errors import BudgetError

NAME = "RUNCOMFY_KLING_SESSION_BUDGET_USD"


class SessionBudget:
    """The spending of one ComfyUI session in USD: estimates until RunComfy reports a cost."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._spent = 0.0
        self._reserved: dict[str, float] = {}

    def reserve(self, generation: str, estimate: float | None, limit: float) -> None:
        """Set an estimate aside for a generation. Raises BudgetError where that could pass the limit."""
        if estimate is None:
            raise BudgetError(
                f"The price of this clip is not known and a session budget is set ({NAME} = {limit:g}), so nothing "
                "was submitted. Try again later, or unset the budget."
            )
        with self._lock:
            # Without what the same generation set aside before: it is submitted once.
            taken = self._spent + sum(usd for name, usd in self._reserved.items() if name != generation)
            if taken + estimate > limit:
                raise BudgetError(
                    f"This clip may cost {estimate:.2f} USD, and {taken:.2f} USD of the session's budget of {limit:g} "
                    f"USD are spent or reserved, so nothing was submitted. Raise {NAME}, or restart ComfyUI to begin "
                    "a new session."
                )
            self._reserved[generation] = estimate

    def release(self, generation: str) -> None:
        """Nothing was accepted, or it was cancelled: give the estimate back."""
        with self._lock:
            self._reserved.pop(generation, None)

    def settle(self, generation: str, cost_usd: float | None) -> None:
        """It ended: what RunComfy reports takes the estimate's place, or the estimate stays."""
        with self._lock:
            if (estimate := self._reserved.pop(generation, None)) is not None:
                self._spent += estimate if cost_usd is None else cost_usd
