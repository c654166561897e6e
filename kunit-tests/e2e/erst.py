# SPDX-License-Identifier: GPL-2.0
"""The file of QEMU's error record store (hw/acpi/erst.c)."""

import struct

# uint64_t magic; uint32_t record_size, storage_offset; uint16_t version, reserved;
# uint32_t record_count; uint64_t map[]: the id of the record in each slot of the file.
_HEADER = struct.Struct("<8sIIHHI")
_FREE = {0, (1 << 64) - 1}


def records(content):
    """Offsets of the records that it holds; what was cleared is still in the file."""
    magic, size, first, *_ = _HEADER.unpack_from(content)
    assert magic == b"ERSTSTOR"
    slots = range(first // size, len(content) // size)
    ids = {slot: struct.unpack_from("<Q", content, _HEADER.size + 8 * slot)[0] for slot in slots}
    return [slot * size for slot in slots if ids[slot] not in _FREE]


def holding(content, what):
    """Offsets of those with `what` in them."""
    size = _HEADER.unpack_from(content)[1]
    return [at for at in records(content) if what in content[at : at + size]]
