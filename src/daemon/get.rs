//! `dpm get`: the bytes of what somebody names, fetched where they are not stored.

use std::io::Write;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_lite::future::{block_on, poll_fn};
use serde_json::{Value, json};
use url::Url;

use crate::base::limits::ARTIFACT_BYTES;
use crate::base::{Artifact, Cid, Digest, parse_cid_text};
use crate::eco::pypi::{self, FileWant, Part, Purl, Want};
use crate::exchange::{Absence, DagLimits};
use crate::fetch::{Body, Reach, Via};
use crate::resolve::Located;
use crate::store::Stored;

use super::Rooms;

type Failure = Box<dyn std::error::Error + Send + Sync>;

/// Bytes between two words on how far a download is.
const PROGRESS_BYTES: u64 = 1 << 20;

/// Gives the bytes to `output`. Blocks.
pub(super) fn get(
    rooms: &Rooms,
    what: &str,
    output: &mut dyn Write,
    progress: &mut dyn FnMut(Value),
) -> Result<Value, Failure> {
    match Named::read(what)? {
        Named::Purl(purl) => {
            let project = block_on(rooms.resolve.project(&purl.name))?;
            let file = purl
                .choose(&project)
                .map_err(|e| format!("{what}: {e}; there are {}", listing(&project, &purl)))?;
            let want = FileWant {
                project: purl.name.clone(),
                digest: file.best_digest(),
                filename: file.filename.clone(),
                part: Part::Whole,
            };
            obtain(rooms, &want, output, progress)
        }
        Named::File(want) => obtain(rooms, &want, output, progress),
        Named::Digest(digest) => match rooms.store.load(&digest)? {
            Some(stored) => give(rooms, &stored, Via::Store, output),
            // A digest says what bytes are, and not where.
            None => {
                Err(format!("{digest} is not stored here; a package URL or a CID says where to look").into())
            }
        },
        Named::Cid(cid) => by_cid(rooms, &cid, output, progress),
    }
}

/// What is named.
enum Named {
    Purl(Purl),
    File(FileWant),
    Digest(Digest),
    Cid(Cid),
}

impl Named {
    fn read(what: &str) -> Result<Self, Failure> {
        if Purl::is_meant(what) {
            return Ok(Self::Purl(Purl::parse(what).map_err(|e| format!("{what}: {e}"))?));
        }
        if let Ok(digest) = what.parse() {
            return Ok(Self::Digest(digest));
        }
        if let Ok(cid) = parse_cid_text(what) {
            return Ok(Self::Cid(cid));
        }
        let path = match Url::parse(what) {
            Ok(url) if matches!(url.scheme(), "http" | "https") => url.path().to_owned(),
            Ok(url) if url.scheme() == "ipfs" => {
                format!("/ipfs/{}", what.split_once("://").map_or("", |(_, rest)| rest))
            }
            _ => what.to_owned(),
        };
        if let Some(cid) = path.strip_prefix("/ipfs/") {
            let cid = parse_cid_text(cid.trim_end_matches('/')).map_err(|e| format!("{what}: {e}"))?;
            return Ok(Self::Cid(cid));
        }
        if let Some(below) = path.strip_prefix("/pypi")
            && let Want::File(want) = pypi::want(below, None)?
        {
            return Ok(Self::File(want));
        }
        Err(format!(
            "{what} names no file: pkg:pypi/NAME@VERSION, a CID, a digest, or a file's URL at dpm do"
        )
        .into())
    }
}

/// Some names of files that there are, for whoever has to choose.
fn listing(project: &pypi::Project, purl: &Purl) -> String {
    const SHOWN: usize = 10;
    let of_version = |name: &&str| purl.version.as_ref().is_none_or(|v| pypi::is_of(name, &purl.name, v));
    let names: Vec<_> = project.files.iter().rev().map(|f| f.filename.as_str()).collect();
    let mut shown: Vec<_> = names.iter().copied().filter(of_version).take(SHOWN + 1).collect();
    if shown.is_empty() {
        shown = names.into_iter().take(SHOWN + 1).collect();
    }
    let more = if shown.len() > SHOWN { ", …" } else { "" };
    shown.truncate(SHOWN);
    format!("{}{more}", shown.join(", "))
}

/// From the store, else from wherever the node gets it.
fn obtain(
    rooms: &Rooms,
    want: &FileWant,
    output: &mut dyn Write,
    progress: &mut dyn FnMut(Value),
) -> Result<Value, Failure> {
    let known = want.digest.filter(|d| d.is_strong() && want.part == Part::Whole);
    if let Some(digest) = known
        && let Some(stored) = rooms.store.load(&digest)?
    {
        return give(rooms, &stored, Via::Store, output);
    }
    let artifact = match block_on(rooms.resolve.locate(want))? {
        Located::Artifact(artifact) => artifact,
        Located::InWheel(wheel) => {
            return Err(format!("the metadata of {} is within the wheel: get that", wheel.filename).into());
        }
    };
    let (stored, via) = fetched(rooms, artifact, progress)?;
    give(rooms, &stored, via, output)
}

/// Has the node fetch it as for any client.
fn fetched(
    rooms: &Rooms,
    artifact: Artifact,
    progress: &mut dyn FnMut(Value),
) -> Result<(Arc<Stored>, Via), Failure> {
    let content = block_on(rooms.fetch.open(artifact.clone()))?;
    let (via, size) = (content.via, content.size);
    if matches!(via, Via::Upstream | Via::Peer) {
        let mut body = content.body(0, None);
        let (mut bytes, mut told) = (0, 0);
        while let Some(piece) = next(&mut body) {
            bytes += piece?.len() as u64;
            if bytes - told >= PROGRESS_BYTES {
                told = bytes;
                progress(json!({"bytes": bytes, "of_bytes": size}));
            }
        }
    }
    // Its last byte comes before it is stored; where there is no room for it, this says so.
    let (stored, _) = block_on(rooms.fetch.complete(artifact))?;
    Ok((stored, via))
}

fn next(body: &mut Body) -> Option<Result<bytes::Bytes, crate::fetch::FetchError>> {
    block_on(poll_fn(|cx| body.poll_next(cx)))
}

/// What a CID names: a file, or a part of one.
fn by_cid(
    rooms: &Rooms,
    cid: &Cid,
    output: &mut dyn Write,
    progress: &mut dyn FnMut(Value),
) -> Result<Value, Failure> {
    let piece = block_on(rooms.fetch.file(cid, Reach::Operator))?;
    let Some(piece) = piece else { return from_swarm(rooms, cid, output, progress) };
    let length = piece.length;
    let mut body = piece.body(0, length);
    while let Some(bytes) = next(&mut body) {
        output.write_all(&bytes?)?;
    }
    let about = super::admin::artifact_of(&rooms.store, cid)?.filter(|about| about.size == length);
    Ok(json!({
        "cid": cid.to_string(), "size": length, "from": "store",
        "digest": about.as_ref().map(|a| format!("sha256:{}", a.sha256)),
        "filename": about.map(|a| a.filename),
    }))
}

/// How long no peer may give anything of a file before `dpm get` gives it up.
const PEERS_TIME: Duration = Duration::from_secs(20);

/// Takes a file that is not stored from the peers, block by block; each is held against its CID. It is not stored here
/// either: no index names it.
fn from_swarm(
    rooms: &Rooms,
    cid: &Cid,
    output: &mut dyn Write,
    progress: &mut dyn FnMut(Value),
) -> Result<Value, Failure> {
    let Some((_, exchange)) = &rooms.near else {
        return Err(
            format!("{cid} is not stored here, and no node with a swarm runs on this data folder").into()
        );
    };
    let limits = DagLimits { bytes: ARTIFACT_BYTES, patience: PEERS_TIME, absence: Absence::Ends };
    let mut told = 0;
    let sink = |offset: u64, bytes: Bytes| {
        if offset - told >= PROGRESS_BYTES {
            told = offset;
            progress(json!({"bytes": offset}));
        }
        output.write_all(&bytes)
    };
    let fetched = block_on(exchange.fetch_file(*cid, &[], limits, sink))
        .map_err(|e| format!("{cid} is not stored here, and the peers did not give it: {e}"))?;
    let givers: Vec<_> = fetched.gave.iter().map(|(peer, ..)| peer.to_string()).collect();
    Ok(json!({
        "cid": cid.to_string(), "size": fetched.size, "from": "peer",
        "digest": format!("sha256:{}", fetched.sha256), "filename": null, "peers": givers,
    }))
}

/// Gives a stored artifact.
fn give(rooms: &Rooms, stored: &Stored, via: Via, output: &mut dyn Write) -> Result<Value, Failure> {
    let mut buffer = vec![0; 256 << 10];
    let mut at = 0;
    while at < stored.size {
        let got = stored.read(&mut buffer, at)?;
        if got == 0 {
            return Err(format!("{} is shorter than recorded: run `dpm verify`", stored.sha256).into());
        }
        output.write_all(&buffer[..got])?;
        at += got as u64;
    }
    let about = rooms.store.describe(&stored.sha256.digest())?;
    let from = match via {
        Via::Store => "store",
        Via::Peer => "peer",
        Via::Upstream | Via::Passed => "upstream",
    };
    Ok(json!({
        "cid": stored.root.map(|c| c.to_string()), "size": stored.size, "from": from,
        "digest": format!("sha256:{}", stored.sha256),
        "filename": about.map(|a| a.filename),
    }))
}
