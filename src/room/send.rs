//! Sending what was queued, one event at a time.

use std::time::{Duration, Instant};

use event_listener::EventListener;
use futures_lite::future;
use matrix_sdk::ruma::{OwnedTransactionId, TransactionId};
use serde_json::value::RawValue;
use tokio::time::sleep_until;

use super::connect::Work;
use super::failure::Failure;
use super::queue::{Item, Next, What};
use super::sync::pause;
use super::{Connection, Event, RoomError, RoomId};

/// Sends until the token does not hold any more.
pub(super) async fn run(work: &Work) {
    let parts = &work.parts;
    let mut failures = 0;
    loop {
        let woken: EventListener = work.wake.listen();
        let next = work.queue().next(Instant::now());
        parts.status().queued = work.queue().waiting();
        let (room, item) = match next {
            Next::Send(room, item) => (room, item),
            Next::At(at) => {
                future::or(sleep_until(at.into()), woken).await;
                continue;
            }
            Next::Empty => {
                woken.await;
                continue;
            }
        };
        match Box::pin(send(work, &room, &item)).await {
            Ok(()) => {
                failures = 0;
                parts.status().sent += 1;
                item.waiter.tell(Ok(()));
            }
            Err(Failure::LoggedOut(why)) => {
                parts.tell(Event::Connection(Connection::LoggedOut { why })).await;
                return;
            }
            Err(Failure::Again { why, after }) => {
                failures += 1;
                let pause = after.unwrap_or(Duration::ZERO).max(pause(&parts.options.patience, failures));
                log::debug!("rooms: {} is sent again in {pause:?}: {why}", item.kind);
                work.queue().put_back(room, item, pause, Instant::now());
            }
            Err(Failure::Refused(why)) => {
                failures = 0;
                item.waiter.tell(Err(RoomError::Refused(why.clone())));
                parts.tell(Event::Refused { room, kind: item.kind, why }).await;
            }
        }
    }
}

async fn send(work: &Work, room: &RoomId, item: &Item) -> Result<(), Failure> {
    let room = work.joined(room).map_err(|e: RoomError| Failure::Refused(e.to_string()))?;
    let content: &RawValue =
        serde_json::from_str(item.content.as_str()).map_err(|e| Failure::Refused(e.to_string()))?;
    let sent = match &item.what {
        What::State { key } => room.send_state_event_raw(item.kind.as_str(), key, content).await.map(|_| ()),
        What::Timeline { transaction } => {
            let transaction: OwnedTransactionId = <&TransactionId>::from(transaction.as_str()).to_owned();
            room.send_raw(item.kind.as_str(), content).with_transaction_id(&transaction).await.map(|_| ())
        }
    };
    sent.map_err(|e| Failure::of(&e))
}
