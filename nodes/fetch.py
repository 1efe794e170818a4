"""Any request of the account by its id, recorded or not: nothing is submitted, nothing is cancelled."""

from __future__ import annotations

from .account import Account
from .corridor import Corridor, Delivery
from .ledger import Entry
from .threads import off_loop
from .workspace import Workspace


async def fetch(request_id: str, *, prefix: str, account: Account, workspace: Workspace) -> Delivery:
    """Deliver the clip of a request. Raises KlingError or Stopped."""
    return await _Fetch(request_id, prefix, account, workspace).run()


class _Fetch(Corridor):
    again = "Kling Fetch Video submits nothing."

    def __init__(self, request_id: str, prefix: str, account: Account, workspace: Workspace) -> None:
        super().__init__(f"request-{request_id}", prefix, account, workspace)
        self._request_id = request_id

    async def _entry(self, followed: bool) -> Entry:
        return await off_loop(self.ledger.note_request, self._request_id, self.account.token)

    def _leave(self, stopped: bool) -> None:
        self.lease.leave()
        self.lease.give_up_lead()
