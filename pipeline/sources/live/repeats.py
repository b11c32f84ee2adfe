"""Pictures that a playlist gives a second time.

Whoever opens an open playlist begins with its last piece, and after an outage, or where nobody adds to the playlist any
more, that piece has been seen already. Its packets have the time stamps and the bytes that they had.
"""

from __future__ import annotations

import zlib
from collections import OrderedDict
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from av.packet import Packet

__all__ = ["Repeats"]

_KEYS = 64  # that are remembered: a minute or more
_WRAP = 1 << 33


class Repeats:
    """What a stream's connections to a playlist have given, as far as the next one may give it again. Time stamps are
    those of the packets, in the playlist's own clock.

    Attributes:
        left_out: pictures of this connection that the ones before it had given.
    """

    def __init__(self) -> None:
        self.left_out = 0
        self._keys: OrderedDict[tuple[int, int, int], int] = OrderedDict()
        self._newest = 0
        self._shift: int | None = None  # of this connection's time stamps, which may have wrapped around
        self._catches_up = False

    def begin(self) -> None:
        """Another connection: its first key packet tells whether it begins with something known."""
        self.left_out = 0
        self._shift, self._catches_up = None, False

    def key(self, packet: Packet[Any]) -> None:
        """The next key packet."""
        if packet.pts is None:
            return
        mark = (packet.pts % _WRAP, packet.size, zlib.crc32(bytes(packet)))
        if self._shift is None:
            known = self._keys.get(mark)
            self._catches_up = known is not None
            self._shift = 0 if known is None else packet.pts - known
            if known is None:
                self._keys.clear()
        self._keys[mark] = packet.pts - self._shift
        self._keys.move_to_end(mark)
        while len(self._keys) > _KEYS:
            self._keys.popitem(last=False)

    def is_new(self, stamp: int | None) -> bool:
        """Whether the picture with this time stamp has not been given yet; it counts as given then."""
        if stamp is None or self._shift is None:
            return True
        stamp -= self._shift
        if self._catches_up and stamp <= self._newest:
            self.left_out += 1
            return False
        self._catches_up = False
        self._newest = stamp
        return True
