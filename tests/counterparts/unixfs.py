"""unixfs-v1-2025 (IPIP-499), for counterparts that cannot import it themselves: CIDv1, sha2-256, 1 MiB chunks,
raw leaves, 1,024 links a node, balanced. The node encoding is dag-pb: links first, then UnixFS data.
"""

import base64
import hashlib

CHUNK_BYTES = 1024 * 1024
WIDTH = 1024

RAW = 0x55
DAG_PB = 0x70


def blocks(path):
    """Yields (cid bytes, block bytes) of the file at `path`, children before parents; the last one is the root."""
    level = []
    with open(path, "rb") as file:
        while chunk := file.read(CHUNK_BYTES):
            cid = _cid(RAW, chunk)
            yield cid, chunk
            level.append((cid, len(chunk), len(chunk)))
    if not level:
        yield _cid(RAW, b""), b""
    while len(level) > 1:
        above = []
        for first in range(0, len(level), WIDTH):
            children = level[first : first + WIDTH]
            block = _node(children)
            cid = _cid(DAG_PB, block)
            yield cid, block
            above.append((cid, sum(c[1] for c in children), len(block) + sum(c[2] for c in children)))
        level = above


def text(cid):
    """A CIDv1 as one writes it: base32, small letters, with the multibase prefix."""
    return "b" + base64.b32encode(cid).decode().lower().rstrip("=")


def _cid(codec, block):
    return bytes([1, codec, 0x12, 32]) + hashlib.sha256(block).digest()


def _node(children):
    """`children`: (cid, bytes of file below it, bytes of blocks below it)."""
    links = b""
    sizes = b""
    for cid, file_bytes, block_bytes in children:
        link = _bytes(1, cid) + _bytes(2, b"") + _number(3, block_bytes)
        links += _bytes(2, link)
        sizes += _number(4, file_bytes)
    # Type 2 is a file.
    data = _number(1, 2) + _number(3, sum(c[1] for c in children)) + sizes
    return links + _bytes(1, data)


def _bytes(field, value):
    return _varint(field << 3 | 2) + _varint(len(value)) + value


def _number(field, value):
    return _varint(field << 3) + _varint(value)


def _varint(value):
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)
