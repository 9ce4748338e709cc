//! Every limit that a stranger's input meets, in one place, each with its reason.

use std::time::Duration;

/// Bytes of a UnixFS chunk: `unixfs-v1-2025` (IPIP-499).
pub const CHUNK_BYTES: u64 = 1 << 20;

/// Largest block in bytes that is moved, or taken from a CAR file: 2 MiB (Bitswap specification, "Block sizes").
pub const BLOCK_BYTES: u64 = 2 << 20;

/// Largest index page taken from an upstream, in bytes as decoded.
///
/// The largest real project pages are under 20 MB of JSON; a page is parsed in memory.
pub const INDEX_BYTES: u64 = 48 << 20;

/// Largest list of all projects (`/simple/`) taken from an upstream, decoded: tens of MB on a large public index.
pub const ROOT_INDEX_BYTES: u64 = 128 << 20;

/// Largest `METADATA` or provenance file: real ones stay under 1 MiB.
pub const METADATA_BYTES: u64 = 8 << 20;

/// Largest artifact in bytes: above the largest known wheels and layers by far, below what fills a disk unasked.
pub const ARTIFACT_BYTES: u64 = 64 << 30;

/// Longest request path in bytes: file names reach 255, twice that with percent-encoding, and a project name.
pub const PATH_BYTES: usize = 2048;

/// Most client connections at once. Each may hold a body buffer; the kernel keeps further ones waiting.
pub const CONNECTIONS: usize = 1024;

/// Most downloads from upstreams at once: each occupies a blocking thread.
pub const DOWNLOADS: usize = 64;

/// Most pass-throughs at once, while the disk is too full to store: each occupies a blocking thread for as long as its
/// reader takes.
pub const PASSES: usize = 64;

/// Most downloads from peers that the upstream helps with at once: each occupies a blocking thread and the place of a
/// chunk in memory, of which there are sixteen.
pub const HEDGES: usize = 4;

/// Most blocking disk operations at once: more only queue in the kernel.
pub const DISK_OPERATIONS: usize = 16;

/// Time for a client to send a request's head. Also how long an idle kept-alive connection may stay.
pub const HEAD_TIME: Duration = Duration::from_secs(75);

/// Time in which a client must take some bytes of a body.
pub const CLIENT_STALL_TIME: Duration = Duration::from_secs(60);

/// Time to connect to an upstream, TLS included.
pub const CONNECT_TIME: Duration = Duration::from_secs(10);

/// Time until an upstream's answer begins.
pub const ANSWER_TIME: Duration = Duration::from_secs(30);

/// Time in which an upstream must send some bytes of a body.
pub const UPSTREAM_STALL_TIME: Duration = Duration::from_secs(30);

/// Least speed of an upstream, averaged over [`SLOW_TIME`]: slower is a trickle that holds a thread for ever.
pub const SLOW_BYTES_PER_SECOND: u64 = 512;

/// See [`SLOW_BYTES_PER_SECOND`].
pub const SLOW_TIME: Duration = Duration::from_secs(60);

/// Bytes of an unfinished artifact that its readers do not get before the whole digest matched.
///
/// Any number above zero keeps a wrong file from being complete; this much is sent in under 6 ms at 100 Mbit/s.
pub const HOLD_BACK_BYTES: u64 = 64 << 10;
