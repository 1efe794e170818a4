"""What a clip will cost, as far as that can be known before: never a guess, never a stale figure."""

from __future__ import annotations

import threading
import time
from dataclasses import dataclass

from .errors import KlingError
from .ledger import Ledger
from .runcomfy.client import Client, NotNow, Price

FRESH_SECONDS = 300


@dataclass(frozen=True)
class Estimate:
    """usd: None where no price is known. at_least: the catalogue gives one base rate, and audio may add to it."""

    usd: float | None = None
    at_least: bool = False
    source: str = ""
    note: str = ""


class Catalogue:
    """Prices of RunComfy's catalogue, each kept for a short while."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._prices: dict[tuple[str, str], tuple[float, Price | None]] = {}

    def price(self, client: Client, model_id: str) -> Price | None:
        """The current price, or None where RunComfy gives none or does not answer. Blocks for one call."""
        key = (client.base_url, model_id)
        with self._lock:
            asked, price = self._prices.get(key, (float("-inf"), None))
        if time.monotonic() - asked < FRESH_SECONDS:
            return price
        try:
            price = client.price(model_id)
        except (NotNow, KlingError):
            return None
        if price is not None:
            with self._lock:
                self._prices[key] = (time.monotonic(), price)
        return price


catalogue = Catalogue()


def estimate(client: Client, ledger: Ledger, model_id: str, seconds: int, audio: bool) -> Estimate:
    """What such a clip cost lately where the ledger knows, else the catalogue's base rate. Blocks for one call."""
    price = catalogue.price(client, model_id)
    if rates := ledger.rates(model_id, audio):
        return Estimate(rates[0] * seconds, False, "ledger", price.note if price else "")
    if price is None or price.unit not in ("second", "output"):
        return Estimate()
    return Estimate(price.usd * (seconds if price.unit == "second" else 1), True, "catalogue", price.note)
