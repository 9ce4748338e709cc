//! `dpm prefetch`: what somebody will want soon, stored beforehand.

use std::cell::Cell;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::Poll;

use futures_lite::future::{block_on, poll_fn};
use serde_json::{Value, json};

use crate::base::{Artifact, Digest};
use crate::eco::oci::{Accepts, Closure, Manifest, Platforms, Reference};
use crate::eco::pypi::Purl;
use crate::fetch::{FetchError, Via};
use crate::resolve::State;
use crate::resolve::images::{ImagesError, Question, Spot};
use crate::store::Stored;

use super::images::{named, read_manifest};
use super::{Rooms, get};

type Failure = Box<dyn std::error::Error + Send + Sync>;

/// Blobs fetched at once. docker takes three layers of an image at once, skopeo six; a registry that counts requests
/// is to see no more of us than of them.
const AT_ONCE: usize = 4;

/// Bytes between two words on how far it is.
const PROGRESS_BYTES: u64 = 1 << 20;

/// What to prefetch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Prefetch {
    /// Images, or package URLs of files.
    pub what: Vec<String>,
    /// Of an image that there is for several.
    pub platforms: Platforms,
    /// Signatures and what else refers to an image come along.
    pub signatures: bool,
}

/// Stores all of it. What cannot be had is named, and does not keep the others.
pub(super) fn prefetch(
    rooms: &Rooms,
    order: &Prefetch,
    progress: &mut dyn FnMut(Value),
) -> Result<Value, Failure> {
    let (mut done, mut failed) = (Vec::new(), Vec::new());
    for what in &order.what {
        let outcome = match Purl::is_meant(what) {
            true => file(rooms, what, progress),
            false => image(rooms, what, order, progress),
        };
        match outcome {
            Ok(row) => done.push(row),
            Err(e) => failed.push(json!({"what": what, "error": e.to_string()})),
        }
    }
    Ok(json!({"prefetched": done, "failed": failed}))
}

/// A package's file, as `dpm get` would write it.
fn file(rooms: &Rooms, what: &str, progress: &mut dyn FnMut(Value)) -> Result<Value, Failure> {
    let got = get::get(rooms, what, &mut std::io::sink(), progress)?;
    let mut sums = Sums::default();
    let via = match got["from"].as_str() {
        Some("store") => Via::Store,
        Some("peer") => Via::Peer,
        _ => Via::Upstream,
    };
    sums.add(via, got["size"].as_u64().unwrap_or_default());
    Ok(sums.row(what, &got["digest"], None))
}

pub(super) fn image(
    rooms: &Rooms,
    what: &str,
    order: &Prefetch,
    progress: &mut dyn FnMut(Value),
) -> Result<Value, Failure> {
    let (spot, reference) = named(&rooms.images, what)?;
    let (root, state) = match reference {
        Reference::Digest(digest) => (digest, None),
        Reference::Tag(tag) => {
            let question = Question::Tag(tag, Accepts::Everything);
            // What the tag means now, and not some minutes ago.
            let said = block_on(rooms.images.ask(&spot, &question, true))?;
            let digest = said.fact.digest.ok_or("the registry gives the tag no digest")?;
            (digest, Some(said.state))
        }
    };
    // More than the store may take would push itself out.
    let budget = rooms.store.space()?.budget_bytes;
    let mut closure = Closure::new(order.platforms.clone(), budget);
    let mut work = Work { rooms, spot: &spot, what, sums: Sums::default(), progress };
    closure.add(root);
    work.manifests(&mut closure)?;
    let mut unanswered = Vec::new();
    if order.signatures {
        for digest in closure.manifests().to_vec() {
            work.referrers(&digest, &mut closure, &mut unanswered);
        }
        work.manifests(&mut closure)?;
    }
    work.blobs(&closure)?;
    let mut row = work.sums.row(what, &root.to_string().into(), state);
    row["manifests"] = closure.manifests().len().into();
    row["blobs"] = closure.blobs().len().into();
    row["unanswered"] = unanswered.into();
    Ok(row)
}

/// Getting one image.
struct Work<'a> {
    rooms: &'a Rooms,
    spot: &'a Spot,
    what: &'a str,
    sums: Sums,
    progress: &'a mut dyn FnMut(Value),
}

impl Work<'_> {
    /// Gets the manifests that belong to it, one after another: each says what comes next.
    fn manifests(&mut self, closure: &mut Closure) -> Result<(), Failure> {
        let images = &self.rooms.images;
        while let Some(step) = closure.step() {
            let manifest = images.manifest(self.spot, &step.digest);
            let artifact = Artifact { size: step.size.or(manifest.size), ..manifest };
            let (stored, via) = block_on(one(self.rooms, artifact, &Cell::new(0)))?;
            self.sums.add(via, stored.size);
            let manifest = closure.take(&step, &read_manifest(&stored)?)?;
            // Of one that is kept apart the registry has to say what it has.
            if !images.registry(self.spot).private {
                images.note_children(self.spot, &manifest);
            }
        }
        Ok(())
    }

    /// Gets the blobs, several at once.
    fn blobs(&mut self, closure: &Closure) -> Result<(), Failure> {
        let rooms = self.rooms;
        let already = self.sums.total();
        let (arrived, mut told) = (Cell::new(0), 0);
        let mut waiting = closure.blobs().iter();
        let mut running: Vec<Pin<Box<dyn Future<Output = Outcome> + '_>>> = Vec::new();
        loop {
            while running.len() < AT_ONCE
                && let Some(blob) = waiting.next()
            {
                let artifact =
                    Artifact { size: Some(blob.size), ..rooms.images.blob(self.spot, &blob.digest) };
                running.push(Box::pin(one(rooms, artifact, &arrived)));
            }
            if running.is_empty() {
                return Ok(());
            }
            let Self { progress, sums, what, .. } = self;
            let ended = block_on(poll_fn(|cx| {
                let mut polled = running.iter_mut().enumerate();
                let ended = polled.find_map(|(at, running)| match running.as_mut().poll(cx) {
                    Poll::Ready(outcome) => Some((at, outcome)),
                    Poll::Pending => None,
                });
                if arrived.get() - told >= PROGRESS_BYTES {
                    told = arrived.get();
                    progress(json!({
                        "what": what, "artifacts": sums.total().artifacts,
                        "of": closure.manifests().len() + closure.blobs().len(),
                        "bytes": already.bytes + arrived.get(), "of_bytes": closure.bytes(),
                    }));
                }
                ended.map_or(Poll::Pending, Poll::Ready)
            }));
            let (at, outcome) = ended;
            drop(running.swap_remove(at));
            let (stored, via) = outcome?;
            self.sums.add(via, stored.size);
        }
    }

    /// Finds what refers to a manifest: by the registry's own list, and by the tags that cosign and older registries
    /// have in its place. `unanswered` names what could not be asked.
    fn referrers(&self, of: &Digest, closure: &mut Closure, unanswered: &mut Vec<String>) {
        let images = &self.rooms.images;
        let tag = of.to_string().replace(':', "-");
        let tags = ["", ".sig", ".att", ".sbom"]
            .map(|end| Question::Tag(format!("{tag}{end}"), Accepts::Everything));
        for question in [Question::Referrers(*of, String::new())].into_iter().chain(tags) {
            match block_on(images.ask(self.spot, &question, false)) {
                Ok(said) => match said.fact.digest {
                    Some(digest) => closure.add(digest),
                    None => {
                        let list = Manifest::read(&said.fact.body);
                        list.iter().flat_map(|l| &l.children).for_each(|child| closure.add(child.digest));
                    }
                },
                Err(ImagesError::Unknown(_)) => {}
                Err(e) => unanswered.push(e.to_string()),
            }
        }
    }
}

pub(super) type Outcome = Result<(Arc<Stored>, Via), FetchError>;

/// Has the node fetch it as for any client; `arrived` counts its bytes.
pub(super) async fn one(rooms: &Rooms, artifact: Artifact, arrived: &Cell<u64>) -> Outcome {
    let content = rooms.fetch.open(artifact.clone()).await?;
    let via = content.via;
    if matches!(via, Via::Upstream | Via::Peer) {
        let mut body = content.body(0, None);
        while let Some(piece) = poll_fn(|cx| body.poll_next(cx)).await {
            arrived.set(arrived.get() + piece?.len() as u64);
        }
    }
    // Its last byte comes before it is stored; where there is no room for it, this says so.
    let (stored, _) = rooms.fetch.complete(artifact).await?;
    Ok((stored, via))
}

#[derive(Clone, Copy, Default)]
struct Sum {
    artifacts: u64,
    bytes: u64,
}

/// Where things came from.
#[derive(Default)]
struct Sums {
    fetched: Sum,
    peers: Sum,
    here: Sum,
}

impl Sums {
    fn add(&mut self, via: Via, bytes: u64) {
        let sum = match via {
            Via::Store => &mut self.here,
            Via::Peer => &mut self.peers,
            Via::Upstream | Via::Passed => &mut self.fetched,
        };
        sum.artifacts += 1;
        sum.bytes += bytes;
    }

    fn total(&self) -> Sum {
        let all = [self.fetched, self.peers, self.here];
        Sum {
            artifacts: all.iter().map(|sum| sum.artifacts).sum(),
            bytes: all.iter().map(|sum| sum.bytes).sum(),
        }
    }

    fn row(&self, what: &str, digest: &Value, state: Option<State>) -> Value {
        let json = |sum: &Sum| json!({"artifacts": sum.artifacts, "bytes": sum.bytes});
        json!({
            "what": what, "digest": digest, "confirmed": state.map(|state| matches!(state, State::Hit | State::Miss)),
            "fetched": json(&self.fetched), "from_peers": json(&self.peers), "already_here": json(&self.here),
        })
    }
}
