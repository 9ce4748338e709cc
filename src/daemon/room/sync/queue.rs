//! Fetching many files, some at once.

use std::cell::Cell;
use std::future::Future;
use std::pin::Pin;
use std::rc::Rc;
use std::task::Poll;

use futures_lite::future::{block_on, poll_fn};

use crate::base::{Artifact, Digest};
use crate::daemon::{Rooms, prefetch};
use crate::eco::pypi::{FileWant, Part};
use crate::fetch::Via;
use crate::resolve::Located;
use crate::resolve::images::Spot;

/// Files fetched at once: what pip and uv with their defaults put on an index together.
const AT_ONCE: usize = 8;

/// Bytes between two words on how far it is.
const PROGRESS_BYTES: u64 = 1 << 20;

/// A file to be fetched.
pub(super) struct Item {
    /// Its package URL.
    pub(super) package: String,
    /// Its name.
    pub(super) file: String,
    pub(super) size: Option<u64>,
    pub(super) what: What,
}

/// How it is asked for.
pub(super) enum What {
    /// By its index.
    File(FileWant),
    /// By its registry.
    Image { spot: Spot, digest: Digest, manifest: bool },
}

/// What happens.
pub(super) enum Done<'a> {
    /// A file is stored: from an upstream or not, or was stored before.
    Stored { upstream: Option<bool>, bytes: u64 },
    /// A file cannot be had.
    Failed { item: &'a Item, why: String },
    /// So many bytes of files on their way, as this one, have come.
    Arriving { bytes: u64, what: &'a str },
}

/// Fetches all of them.
pub(super) fn fetch(rooms: &Rooms, items: Vec<Item>, mut tell: impl FnMut(Done<'_>)) {
    let mut waiting = items.iter();
    let mut running: Vec<Running<'_>> = Vec::new();
    // Of files that are still on their way.
    let mut told = 0;
    loop {
        while running.len() < AT_ONCE
            && let Some(item) = waiting.next()
        {
            let arrived = Rc::new(Cell::new(0));
            let work = Box::pin(obtain(rooms, item, arrived.clone()));
            running.push(Running { item, arrived, work });
        }
        if running.is_empty() {
            return;
        }
        let (at, outcome) = block_on(poll_fn(|cx| {
            let mut polled = running.iter_mut().enumerate();
            let ended = polled.find_map(|(at, running)| match running.work.as_mut().poll(cx) {
                Poll::Ready(outcome) => Some((at, outcome)),
                Poll::Pending => None,
            });
            let bytes = running.iter().map(|running| running.arrived.get()).sum::<u64>();
            if bytes.abs_diff(told) >= PROGRESS_BYTES {
                told = bytes;
                let what = running.last().map_or("", |running| running.item.file.as_str());
                tell(Done::Arriving { bytes, what });
            }
            ended.map_or(Poll::Pending, Poll::Ready)
        }));
        let ended = running.swap_remove(at);
        match outcome {
            Ok((via, bytes)) => {
                let upstream = match via {
                    Via::Store => None,
                    Via::Peer => Some(false),
                    Via::Upstream | Via::Passed => Some(true),
                };
                tell(Done::Stored { upstream, bytes });
            }
            Err(why) => tell(Done::Failed { item: ended.item, why }),
        }
        tell(Done::Arriving {
            bytes: running.iter().map(|running| running.arrived.get()).sum(),
            what: &ended.item.file,
        });
    }
}

/// From where it came and how large it is, or why it did not.
type Outcome = Result<(Via, u64), String>;

struct Running<'a> {
    item: &'a Item,
    arrived: Rc<Cell<u64>>,
    work: Pin<Box<dyn Future<Output = Outcome> + 'a>>,
}

/// Has the node fetch one, as for any client.
async fn obtain(rooms: &Rooms, item: &Item, arrived: Rc<Cell<u64>>) -> Outcome {
    let artifact = match &item.what {
        What::File(want) => located(rooms, want).await?,
        What::Image { spot, digest, manifest } => {
            let artifact = match manifest {
                true => rooms.images.manifest(spot, digest),
                false => rooms.images.blob(spot, digest),
            };
            Artifact { size: artifact.size.or(item.size), ..artifact }
        }
    };
    let (stored, via) = prefetch::one(rooms, artifact, &arrived).await.map_err(|e| e.to_string())?;
    if let What::File(want) = &item.what
        && want.filename.ends_with(".whl")
    {
        // What clients read of a wheel before they take it. Where it cannot be had apart it comes out of the wheel.
        let beside = FileWant { part: Part::Metadata, ..want.clone() };
        if let Ok(Located::Artifact(artifact)) = rooms.resolve.locate(&beside).await
            && let Err(e) = prefetch::one(rooms, artifact, &Cell::new(0)).await
        {
            log::info!("{}.metadata: {e}", want.filename);
        }
    }
    Ok((via, stored.size))
}

async fn located(rooms: &Rooms, want: &FileWant) -> Result<Artifact, String> {
    match rooms.resolve.locate(want).await.map_err(|e| e.to_string())? {
        Located::Artifact(artifact) | Located::InWheel(artifact) => Ok(artifact),
    }
}
