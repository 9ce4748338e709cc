"""py-libp2p as a counterpart: one node, driven by JSON lines (tests/counterparts/README.md has the commands).

Run by the Python that lies beside py-libp2p: <counterparts>/libp2p/bin/python py_libp2p.py
It refuses to add blocks above 512 KiB, so it cannot import unixfs-v1-2025: its own profile is CIDv1, raw leaves of
256 KiB, 174 links a node. Fetching 1 MiB blocks it does not refuse.
"""

import hashlib
import json
import os
import resource
import sys
import time

import multiaddr
import trio

from libp2p import new_host
from libp2p.bitswap import BitswapClient, cid_to_text
from libp2p.bitswap.dag import MerkleDag
from libp2p.crypto.ed25519 import create_new_key_pair
from libp2p.host.ping import PingService
from libp2p.peer.id import ID
from libp2p.peer.peerinfo import info_from_p2p_addr

FETCH_SECONDS = 60
DIAL_SECONDS = 10

# What the library prints must not get between the answers.
answers = os.fdopen(os.dup(1), "w")
os.dup2(2, 1)


class Refused(Exception):
    """An answer for whoever asked."""


class Node:
    def __init__(self, nursery):
        self.nursery = nursery
        self.host = None

    async def start(self, listen, mdns=False):
        if self.host:
            raise Refused("already started")
        listen = [multiaddr.Multiaddr(each) for each in ([listen] if isinstance(listen, str) else listen)]
        self.host = new_host(
            key_pair=create_new_key_pair(), enable_quic=True, enable_tcp=False, enable_mDNS=mdns, listen_addrs=listen
        )
        await self.nursery.start(self.run, listen)
        return {"peer": str(self.host.get_id()), "addresses": [str(each) for each in self.host.get_addrs()]}

    async def run(self, listen, task_status):
        async with self.host.run(listen_addrs=listen), trio.open_nursery() as nursery:
            self.bitswap = BitswapClient(self.host)
            self.bitswap.set_nursery(nursery)
            await self.bitswap.start()
            self.dag = MerkleDag(self.bitswap)
            task_status.started()
            await trio.sleep_forever()

    async def add(self, file, profile="libp2p"):
        if profile != "libp2p":
            raise Refused(f"py-libp2p cannot import {profile}: it adds no block above 512 KiB")
        return {"cid": cid_to_text(await self.dag.add_file(file))}

    async def connect(self, address):
        peer = info_from_p2p_addr(multiaddr.Multiaddr(address))
        with trio.fail_after(DIAL_SECONDS):
            await self.host.connect(peer)
        return {"peer": str(peer.peer_id)}

    async def fetch(self, cid, out, timeout_seconds=FETCH_SECONDS):
        used, began = time.process_time(), time.monotonic()
        try:
            with trio.fail_after(timeout_seconds):
                # Its own limit is for each block.
                found, _ = await self.dag.fetch_file(cid, timeout=timeout_seconds)
        except trio.TooSlowError:
            raise Refused(f"not fetched within {timeout_seconds} s") from None
        seconds, cpu_seconds = time.monotonic() - began, time.process_time() - used
        await trio.Path(out).write_bytes(found)
        sha256 = hashlib.sha256(found).hexdigest()
        return {"bytes": len(found), "seconds": seconds, "cpu_seconds": cpu_seconds, "sha256": sha256}

    async def ping(self, peer):
        with trio.fail_after(DIAL_SECONDS):
            times = await PingService(self.host).ping(ID.from_string(peer))
        return {"milliseconds": times[0]}

    async def peers(self):
        return {"peers": [{"peer": str(peer)} for peer in self.host.get_connected_peers()]}

    async def usage(self):
        # ru_maxrss is in KiB on Linux.
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
        return {"cpu_seconds": time.process_time(), "peak_resident_bytes": peak}

    async def stop(self):
        if self.host:
            with trio.move_on_after(DIAL_SECONDS):
                await self.host.close()
        return {"stopped": True}


COMMANDS = ("start", "add", "connect", "fetch", "ping", "peers", "usage", "stop")


async def answer(node, line):
    request = {}
    try:
        request = json.loads(line)
        arguments = {key: value for key, value in request.items() if key not in ("do", "id")}
        if request["do"] not in COMMANDS:
            raise Refused(f"there is no command {request['do']}")
        if node.host is None and request["do"] not in ("start", "stop"):
            raise Refused("not started")
        reply = await getattr(node, request["do"])(**arguments)
    except Exception as error:  # whatever it is, whoever asked shall know
        while isinstance(error, BaseExceptionGroup):
            error = error.exceptions[0]
        reply = {"error": str(error) or type(error).__name__}
    if "id" in request:
        reply["id"] = request["id"]
    answers.write(json.dumps(reply) + "\n")
    answers.flush()
    if request.get("do") == "stop":
        os._exit(0)


async def main():
    async with trio.open_nursery() as nursery:
        node = Node(nursery)
        while line := await trio.to_thread.run_sync(sys.stdin.readline, abandon_on_cancel=True):
            nursery.start_soon(answer, node, line)
        # Whoever started this is gone when stdin ends.
        os._exit(0)


trio.run(main)
