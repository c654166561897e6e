# SPDX-License-Identifier: GPL-2.0
"""Frames of the command channel between the runner and the node.

The same file is used on both sides; the image holds a copy. A frame is

    magic, u32 header length, u32 payload length (little endian),
    header (JSON object), payload (bytes)

A virtio-serial port is a byte stream that outlives a guest's reboot: either
side may find half a frame of an earlier life. A reader that lost its place
therefore searches for the next magic number, and the node begins with enough
zeros to complete whatever it was sending before.
"""

import json
import struct

MAGIC = b"\xffNHZ"
_PREFIX = struct.Struct("<4sII")
MAX_HEADER = 1 << 20
MAX_PAYLOAD = 64 << 20
# The longest payload that the node sends.
PIECE = 64 << 10
# Ends a frame that was cut short: longer than the rest of any can be.
FLUSH = bytes(PIECE + 4096)


def encode(header, payload=b""):
    """One frame as bytes. `header` must serialise to JSON."""
    text = json.dumps(header, separators=(",", ":")).encode()
    if len(text) > MAX_HEADER or len(payload) > MAX_PAYLOAD:
        raise ValueError(f"frame too large: header {len(text)}, payload {len(payload)} bytes")
    return _PREFIX.pack(MAGIC, len(text), len(payload)) + text + payload


class Reader:
    """Cuts a byte stream into frames."""

    def __init__(self):
        self._data = bytearray()
        self.skipped = 0

    def reset(self):
        """Forgets what was received so far."""
        self._data.clear()

    def feed(self, data):
        """Takes received bytes; yields every (header, payload) that is complete."""
        self._data += data
        while True:
            start = self._data.find(MAGIC)
            if start < 0:
                # The magic number may be cut in two.
                start = max(0, len(self._data) - len(MAGIC) + 1)
            self.skipped += start
            del self._data[:start]
            if len(self._data) < _PREFIX.size:
                return
            _, header_len, payload_len = _PREFIX.unpack_from(self._data)
            if header_len > MAX_HEADER or payload_len > MAX_PAYLOAD:
                del self._data[: len(MAGIC)]
                continue
            end = _PREFIX.size + header_len + payload_len
            if len(self._data) < end:
                return
            text = bytes(self._data[_PREFIX.size : _PREFIX.size + header_len])
            try:
                header = json.loads(text)
            except ValueError:
                header = None
            if not isinstance(header, dict):
                del self._data[: len(MAGIC)]
                continue
            payload = bytes(self._data[_PREFIX.size + header_len : end])
            del self._data[:end]
            yield header, payload
