//! Handing an upstream's answer through: nothing is known of its bytes, so nothing is verified and nothing stored.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use bytes::Bytes;
use url::Url;

use crate::upstream::{self, Ask, Head, Status, UpstreamError};

use super::follow::{broken, read_some};
use super::pass::QUEUE;
use super::{Body, CHUNK, Fetch, FetchError, Inner};

/// An upstream's answer, whose body comes as it is read.
pub struct Through {
    /// What it means.
    pub status: Status,
    /// What it says of itself.
    pub head: Head,
    /// Its bytes. One that breaks off ends in an error.
    pub body: Body,
}

type Opened = Result<(Status, Head), FetchError>;

impl Fetch {
    /// Asks the upstream of this name for `url`, and returns when the answer's head is there. `filename` is for messages.
    ///
    /// [`FetchError::Missing`] for 404 and 410. A range that the upstream will not give is asked for once more as a whole.
    /// Cancel-safe: without a reader the download ends.
    pub async fn through(
        &self,
        upstream: &str,
        url: Url,
        filename: String,
        ask: Ask,
    ) -> Result<Through, FetchError> {
        let inner = self.inner.clone();
        if inner.offline {
            return Err(FetchError::Offline(filename));
        }
        if !inner.sites.contains_key(upstream) {
            return Err(FetchError::NoSite(upstream.to_owned()));
        }
        let (upstream, lost) = (upstream.to_owned(), filename.clone());
        let (opened, head) = async_channel::bounded::<Opened>(1);
        let (sender, receiver) = async_channel::bounded(QUEUE);
        let tasks = inner.tasks.clone();
        tasks.spawn(async move {
            let gate = inner.passes.clone();
            gate.run(move || hand_through(&inner, &upstream, &url, filename, ask, &opened, &sender)).await;
        });
        let (status, head) = head.recv().await.map_err(|_| FetchError::GivenUp(lost))??;
        let end = match status {
            Status::Ok | Status::Partial { .. } => head.length,
            Status::NotModified | Status::Missing => None,
        };
        Ok(Through { status, head, body: Body::through(receiver, end) })
    }
}

fn hand_through(
    inner: &Arc<Inner>,
    upstream: &str,
    url: &Url,
    filename: String,
    ask: Ask,
    opened: &async_channel::Sender<Opened>,
    sender: &async_channel::Sender<Result<Bytes, FetchError>>,
) {
    // Nobody waits any more: there is nobody to tell.
    let tell = |outcome| opened.send_blocking(outcome).is_ok();
    if opened.is_closed() {
        return;
    }
    let mut body = match open(inner, upstream, url, ask) {
        Ok(upstream::Answer { status: Status::Missing, .. }) => {
            tell(Err(FetchError::Missing(filename)));
            return;
        }
        Ok(upstream::Answer { status, head, body, .. }) => {
            if !tell(Ok((status, head))) {
                return;
            }
            body
        }
        Err(e) => {
            tell(Err(FetchError::Upstream(e)));
            return;
        }
    };
    loop {
        let mut buffer = vec![0; CHUNK];
        let piece = match read_some(&mut body, &mut buffer) {
            Ok(0) => return,
            Ok(length) => {
                inner.counters.upstream_bytes.fetch_add(length as u64, Ordering::Relaxed);
                buffer.truncate(length);
                Ok(Bytes::from(buffer))
            }
            Err(e) => Err(FetchError::Upstream(broken(&e))),
        };
        let failed = piece.is_err();
        // A reader that has gone ends it.
        if sender.send_blocking(piece).is_err() || failed {
            return;
        }
    }
}

fn open(inner: &Inner, upstream: &str, url: &Url, ask: Ask) -> Result<upstream::Answer, UpstreamError> {
    let site = &inner.sites[upstream];
    match inner.client.open(site, url, &ask) {
        // 416 among them: what a client has of it may be of an older file.
        Err(UpstreamError::BadRange { .. }) if ask.range.is_some() => {
            inner.client.open(site, url, &Ask { range: None, if_range: None, ..ask })
        }
        answer => answer,
    }
}
