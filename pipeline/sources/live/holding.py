"""Packets on their way to a recorder."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from av.packet import Packet
    from av.video.frame import VideoFrame

__all__ = ["HeldPackets"]

_HELD = 32  # packets of video that a decoder keeps back, at most


class HeldPackets:
    """Hands packets on in their order. A key packet and those after it are held until its picture has been seen: only
    that tells whether it belongs into another file, because the clock jumped or the picture's size changed.
    """

    def __init__(self) -> None:
        self._write: Callable[[Packet[Any]], None] | None = None
        self._early: list[Packet[Any]] | None = []  # from before anybody said whether they are to be recorded
        self._held: list[Packet[Any]] = []
        self._videos = 0  # of those held

    def hand_to(self, write: Callable[[Packet[Any]], None] | None) -> None:
        """Give every packet to ``write``, also those from before; None: nobody wants them."""
        early, self._early, self._write = self._early or [], None, write
        for packet in early:
            self._hand(packet)

    def add(self, packet: Packet[Any], *, video: bool) -> None:
        """The next packet, before its pictures are given."""
        if video and packet.is_keyframe:
            self.flush()
            self._held.append(packet)
        elif self._held:
            self._held.append(packet)
            self._videos += video
            if self._videos >= _HELD:
                self.flush()
        else:
            self._hand(packet)

    def seen(self, picture: VideoFrame) -> None:
        """This picture was looked at; what is recorded may go on."""
        first = self._held[0].pts if self._held else None
        if first is None or picture.pts is None or (first == picture.pts and picture.key_frame):
            self.flush()

    def forget(self, picture: VideoFrame) -> None:
        """This picture was not wanted, and neither are the packets up to it."""
        if self._early is not None:
            self._early.clear()
        first = self._held[0].pts if self._held else None
        if first is not None and picture.pts is not None and first <= picture.pts:
            self._held.clear()
            self._videos = 0

    def flush(self) -> None:
        """Hold nothing any more."""
        held, self._held, self._videos = self._held, [], 0
        for packet in held:
            self._hand(packet)

    def _hand(self, packet: Packet[Any]) -> None:
        if self._write is not None:
            self._write(packet)
        elif self._early is not None:
            self._early.append(packet)
