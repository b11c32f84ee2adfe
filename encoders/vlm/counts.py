"""What asking a model behind an address has cost: requests, tokens and money. Nothing heavy is imported here."""

from __future__ import annotations

from dataclasses import asdict, dataclass, fields
from typing import Any

from encoders.vlm.options import VlmOptions

__all__ = ["VlmCounts", "asked_since", "counts_of"]

_PRICED_TOKENS = 1_000_000


@dataclass
class VlmCounts:
    """What asking has cost since the captioner was loaded. Counts add up, and later ones less earlier ones are what was
    asked between.

    Attributes:
        requests: that were sent, repetitions among them.
        retries: of these, repetitions.
        failures: captions that were not had, however often they were asked for.
        captions: answers that were had; empty: of these, without a word; cut: of these, ended by their length.
        sent_bytes: in the requests.
        tokens_in, tokens_out: as the server counts them; ``without_usage`` answers did not say.
        seconds: all requests took together, waits between them not counted.
        waited_seconds: between repetitions.
    """

    requests: int = 0
    retries: int = 0
    failures: int = 0
    captions: int = 0
    empty: int = 0
    cut: int = 0
    sent_bytes: int = 0
    tokens_in: int = 0
    tokens_out: int = 0
    without_usage: int = 0
    seconds: float = 0.0
    waited_seconds: float = 0.0

    def __add__(self, other: VlmCounts) -> VlmCounts:
        return VlmCounts(**{one.name: getattr(self, one.name) + getattr(other, one.name) for one in fields(self)})

    def __sub__(self, other: VlmCounts) -> VlmCounts:
        return VlmCounts(**{one.name: getattr(self, one.name) - getattr(other, one.name) for one in fields(self)})

    def cost(self, options: VlmOptions) -> float | None:
        """The price of the tokens that were told of, in ``options.currency``; ``None`` where no price is set."""
        if not (options.price_in or options.price_out):
            return None
        return (self.tokens_in * options.price_in + self.tokens_out * options.price_out) / _PRICED_TOKENS

    def line(self, options: VlmOptions) -> str:
        """For people: ``14 requests (2 of them again), 1400 tokens in, 98 out, 0.0123 USD``."""
        again = f" ({self.retries} of them again)" if self.retries else ""
        text = f"{self.requests} request{'' if self.requests == 1 else 's'}{again}"
        text += f", {self.tokens_in} tokens in, {self.tokens_out} out"
        if self.without_usage:
            text += f" (of {self.without_usage} of the answers nobody says how many)"
        cost = self.cost(options)
        return text if cost is None else f"{text}, {cost:.4f} {options.currency}"

    def to_dict(self, options: VlmOptions) -> dict[str, Any]:
        """For JSON: the counts, and ``cost`` and ``currency``, which are null where no price is set."""
        cost = self.cost(options)
        return {**asdict(self), "cost": cost, "currency": None if cost is None else options.currency}


def counts_of(captioner: object) -> VlmCounts | None:
    """What a captioner has been asked so far; ``None``: it is asked over no wire, and costs nothing."""
    counts = getattr(captioner, "counts", None)
    return counts if isinstance(counts, VlmCounts) else None


def asked_since(captioner: object, before: VlmCounts | None) -> VlmCounts | None:
    """What a captioner was asked since its counts were ``before``; ``None``: it costs nothing."""
    after = counts_of(captioner)
    return None if before is None or after is None else after - before
