//! Brings members' catalogues here, block by block: of each node one at a time, of few at once.

use std::collections::{HashMap, HashSet};
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use async_lock::Semaphore;
use futures_lite::future;

use crate::base::{Cid, PeerId};
use crate::catalogue::CatalogueError;
use crate::members::{MembersError, Pulling, Wanted};

use super::backoff::Backoff;
use super::{Inner, LOCK, Near};

/// Catalogues on their way at once.
const AT_ONCE: usize = 4;

/// Blocks asked for with one call: some 5 MB.
const BLOCKS: usize = 2048;

/// Other connected members that are asked for what the owner does not give: of catalogues that are alike they have it.
const OTHERS: usize = 2;

/// While a node is not connected, it is looked for this often. Looking costs a lock.
const LOOK: Duration = Duration::from_millis(500);

/// How often it is looked what is wanted, besides when somebody says something.
const TICK: Duration = Duration::from_secs(60);

/// Time for one catalogue, and for each of its entries beside that: slower nodes give none.
const PULL_TIME: Duration = Duration::from_secs(120);
const ENTRY_TIME: Duration = Duration::from_micros(500);

/// What goes on, and what failed.
#[derive(Default)]
struct State {
    /// Whose, and who speaks for them: of one user one at a time, so that nobody takes all places.
    running: HashMap<PeerId, String>,
    backoff: Backoff<PeerId>,
}

/// Runs for ever.
pub(super) async fn run(inner: Arc<Inner>, near: Near) {
    let state = Arc::new(Mutex::new(State::default()));
    let places = Arc::new(Semaphore::new(AT_ONCE));
    loop {
        if inner.hurry.swap(false, Ordering::Relaxed) {
            state.lock().expect(LOCK).backoff = Backoff::default();
        }
        let members = inner.members.clone();
        let wanted = inner.disk.run(move || members.wanted()).await;
        let now = Instant::now();
        let mut next = now + TICK;
        for wanted in wanted {
            let peer = wanted.peer;
            let is_busy = |running: &HashMap<PeerId, String>| {
                running.contains_key(&peer) || running.values().any(|user| *user == wanted.user)
            };
            if is_busy(&state.lock().expect(LOCK).running) {
                continue;
            }
            if let Some(until) = state.lock().expect(LOCK).backoff.until(&peer, now) {
                next = next.min(until);
                continue;
            }
            if !is_connected(&near, &peer) {
                inner.members.failed(&wanted, "its node is not connected");
                next = next.min(now + LOOK);
                continue;
            }
            // Whoever ends rings.
            let Some(place) = places.try_acquire_arc() else { break };
            state.lock().expect(LOCK).running.insert(peer, wanted.user.clone());
            let (inner, near, state) = (inner.clone(), near.clone(), state.clone());
            inner.clone().tasks.spawn(async move {
                let outcome = in_time(&inner, &near, &wanted).await;
                drop(place);
                let mut state = state.lock().expect(LOCK);
                state.running.remove(&peer);
                match outcome {
                    Ok(()) => state.backoff.went_well(&peer),
                    Err(why) => {
                        log::info!("rooms: the catalogue of {peer} in {} is not here: {why}", wanted.room);
                        inner.members.failed(&wanted, &why);
                        state.backoff.failed(peer, Instant::now());
                    }
                }
                drop(state);
                inner.pulls.ring();
                inner.follows.ring();
            });
        }
        future::or(inner.pulls.heard(), async {
            async_io::Timer::at(next).await;
        })
        .await;
    }
}

fn is_connected(near: &Near, peer: &PeerId) -> bool {
    near.swarm.peers().iter().any(|info| info.peer == *peer && !info.protocols.is_empty())
}

async fn in_time(inner: &Arc<Inner>, near: &Near, wanted: &Wanted) -> Result<(), String> {
    let entries = u32::try_from(wanted.root.entries).unwrap_or(u32::MAX);
    let most = PULL_TIME + ENTRY_TIME.saturating_mul(entries);
    future::or(pull(inner, near, wanted), async {
        async_io::Timer::after(most).await;
        Err(format!("it takes longer than {} s", most.as_secs()))
    })
    .await
}

async fn pull(inner: &Arc<Inner>, near: &Near, wanted: &Wanted) -> Result<(), String> {
    let (members, of) = (inner.members.clone(), wanted.clone());
    let mut pulling = inner.disk.run(move || members.pull(&of)).await;
    let said = |e: MembersError| e.to_string();
    loop {
        let (back, cids) = inner.disk.run(move || next(pulling)).await;
        pulling = back;
        let cids = cids.map_err(said)?;
        if cids.is_empty() {
            return inner.disk.run(move || pulling.finish()).await.or_else(|e| match e {
                // There is a newer one, which is fetched next.
                MembersError::Overtaken => Ok(()),
                e => Err(e.to_string()),
            });
        }
        let mut peers = vec![wanted.peer];
        let others = near.swarm.peers().into_iter().map(|info| info.peer);
        let may = |peer: &PeerId| *peer != wanted.peer && inner.members.is_member(peer);
        peers.extend(others.filter(may).take(OTHERS));
        let got = near.exchange.blocks(&peers, cids.clone()).await.map_err(|e| e.to_string())?;
        if got.is_empty() {
            return Err("nobody gives its blocks".into());
        }
        let (back, outcome) = inner
            .disk
            .run(move || {
                let mut missing: HashSet<Cid> = cids.into_iter().collect();
                for (cid, block) in got {
                    // What was not asked for is nobody's business.
                    if missing.remove(&cid)
                        && let Err(e) = pulling.got(&cid, block)
                    {
                        return (pulling, Err(e));
                    }
                }
                missing.iter().for_each(|cid| pulling.missed(cid));
                (pulling, Ok(()))
            })
            .await;
        pulling = back;
        outcome.map_err(said)?;
    }
}

/// The next blocks to ask for. Blocks.
fn next(mut pulling: Pulling) -> (Pulling, Result<Vec<Cid>, MembersError>) {
    let mut cids = Vec::new();
    while cids.len() < BLOCKS {
        match pulling.next_block() {
            Ok(Some(cid)) => cids.push(cid),
            Ok(None) => break,
            Err(e) => return (pulling, Err(e)),
        }
    }
    if cids.is_empty() && !pulling.is_done() {
        let why = CatalogueError::Budget("blocks");
        return (pulling, Err(why.into()));
    }
    (pulling, Ok(cids))
}
