//! Streams that other nodes open.

use std::collections::HashMap;
use std::io::{Error, Result};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_lock::Semaphore;
use futures_lite::io::AsyncWriteExt;

use crate::base::PeerId;
use crate::swarm::Stream;
use crate::wire::near::{FRAME_BYTES, Offers, Open};

use super::super::Exchange;
use super::io::{Reader, within, write_frame};
use super::{NEAR, blocks, give, news};

/// Streams served at once, of all peers. Each has a task, 8 KiB read ahead, and either a first frame that has not come
/// to its end (128 KiB) or a piece of a file (64 KiB): 70 MB where all are as bad as can be.
const STREAMS: usize = 512;

/// Of these, streams of one peer: 64 downloads, and as many questions.
const STREAMS_OF_ONE: usize = 128;

/// Questions looked up at once. Each needs a thread of those that also read for clients, and there are 16 of them.
const LOOKUPS: usize = 4;

/// Time for a peer to say what it opened a stream for, and to take an answer.
const OPEN_TIME: Duration = Duration::from_secs(10);

/// Accepts for ever: a place first, then a stream.
pub(in crate::exchange) async fn serve(exchange: Exchange) {
    let serving = Arc::new(Mutex::new(HashMap::new()));
    let lookups = Arc::new(Semaphore::new(LOOKUPS));
    let tasks = exchange.inner.tasks.clone();
    while let Some((peer, stream)) = exchange.inner.swarm.accept(NEAR).await {
        let Some(place) = Place::take(&serving, peer) else {
            // Closed without a word: the peer asks somebody else.
            log::debug!("too many streams: one of {peer} is not served");
            continue;
        };
        let (exchange, lookups) = (exchange.clone(), lookups.clone());
        tasks.spawn(async move {
            if let Err(e) = attend(&exchange, peer, stream, &lookups, &place).await {
                log::debug!("a stream of {peer}: {e}");
            }
        });
    }
}

type Serving = Arc<Mutex<HashMap<PeerId, Of>>>;

/// What is served to one peer.
#[derive(Default)]
struct Of {
    streams: usize,
    /// How many streams of news it has opened.
    news: u64,
}

/// A stream's place among those served.
struct Place(Serving, PeerId);

impl Place {
    fn take(serving: &Serving, peer: PeerId) -> Option<Self> {
        let mut all = serving.lock().expect(LOCK);
        let count: usize = all.values().map(|of| of.streams).sum();
        if count >= STREAMS || all.get(&peer).is_some_and(|of| of.streams >= STREAMS_OF_ONE) {
            return None;
        }
        all.entry(peer).or_default().streams += 1;
        Some(Self(serving.clone(), peer))
    }

    /// Notes one more stream of news; gives its number.
    fn for_news(&self) -> u64 {
        let mut all = self.0.lock().expect(LOCK);
        let of = all.entry(self.1).or_default();
        of.news += 1;
        of.news
    }

    /// Whether no later stream of news came: the latest counts, earlier ones may be of a connection that is lost.
    fn is_latest(&self, news: u64) -> bool {
        self.0.lock().expect(LOCK).get(&self.1).is_some_and(|of| of.news == news)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut all = self.0.lock().expect(LOCK);
        if let Some(of) = all.get_mut(&self.1) {
            of.streams -= 1;
            if of.streams == 0 {
                all.remove(&self.1);
            }
        }
    }
}

const LOCK: &str = "nothing panics under this lock";

async fn attend(
    exchange: &Exchange,
    peer: PeerId,
    stream: Stream,
    lookups: &Semaphore,
    place: &Place,
) -> Result<()> {
    exchange.placed(&peer).await;
    let (reader, mut writer) = futures_lite::io::split(stream);
    let mut reader = Reader::new(reader);
    let opening = within(OPEN_TIME, "opening", reader.frame(FRAME_BYTES)).await?;
    let open = opening.map(|frame| Open::decode(&frame)).transpose().map_err(Error::other)?;
    match open {
        Some(Open::Ask { digests, claim }) => {
            let (asked, inner) = (exchange.clone(), &exchange.inner);
            let look = move || digests.iter().map(|d| asked.offer(&peer, d, claim)).collect();
            let offers = {
                let _one = lookups.acquire().await;
                inner.disk.run(look).await
            };
            inner.counters.answered.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
            let answer = async {
                write_frame(&mut writer, &Offers { offers }.frame()).await?;
                writer.close().await
            };
            within(OPEN_TIME, "an answer", answer).await
        }
        Some(Open::Take { digest }) => give::give(exchange, peer, digest, reader, writer).await,
        Some(Open::Blocks { hashes }) => blocks::give(exchange, peer, &hashes, lookups, &mut writer).await,
        // Of others they are not believed.
        Some(Open::News(_)) if !exchange.inner.peers.is_near(&peer) => Ok(()),
        Some(Open::News(first)) => {
            let number = place.for_news();
            news::listen(exchange, peer, first, reader, || place.is_latest(number)).await
        }
        Some(Open::Unknown(_)) | None => Ok(()),
    }
}
