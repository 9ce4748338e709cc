"""A bad line between two interfaces: bad_line.py ONE OTHER DELAY_MS LOST_PER_MILLE, until the standard input ends.

What netem does, which not every kernel has.
"""

import random
import select
import socket
import sys
import time
from collections import deque

SOL_PACKET, PACKET_VNET_HDR, EVERY_PROTOCOL = 263, 15, 3
FRAME_BYTES = 1 << 17


def end(name):
    end = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0)
    # What the kernel has left for the hardware, checksums above all, goes along in a header.
    end.setsockopt(SOL_PACKET, PACKET_VNET_HDR, 1)
    end.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4 << 20)
    end.setblocking(False)
    end.bind((name, EVERY_PROTOCOL))
    return end


def receive(source, target, waiting):
    while True:
        try:
            frame, (_, _, kind, *_) = source.recvfrom(FRAME_BYTES)
        except BlockingIOError:
            return
        # Our own come by, too.
        if kind != socket.PACKET_OUTGOING and random.random() >= lost:
            waiting.append((time.monotonic() + delay, target, frame))


one, other = end(sys.argv[1]), end(sys.argv[2])
delay, lost = float(sys.argv[3]) / 1000, float(sys.argv[4]) / 1000
ways = {one: other, other: one}
waiting = deque()
print("carries", flush=True)
while True:
    left = max(0, waiting[0][0] - time.monotonic()) if waiting else None
    ready, _, _ = select.select([sys.stdin, *ways], [], [], left)
    if sys.stdin in ready:
        break
    for source in ready:
        receive(source, ways[source], waiting)
    while waiting and waiting[0][0] <= time.monotonic():
        _, target, frame = waiting.popleft()
        try:
            target.send(frame)
        except OSError:
            pass  # A queue is full, or the interface is down: it is lost.
