//! Listening: one question for news after another, held by the homeserver until there is some.

use std::collections::hash_map::RandomState;
use std::hash::{BuildHasher, Hasher};
use std::time::Duration;

use matrix_sdk::config::SyncSettings;
use matrix_sdk::ruma::api::client::filter::{Filter, FilterDefinition, RoomEventFilter, RoomFilter};
use matrix_sdk::ruma::api::client::sync::sync_events::v3::Filter as Wanted;
use matrix_sdk::ruma::presence::PresenceState;
use matrix_sdk::sync::SyncResponse;
use tokio::time::{Instant, sleep, sleep_until};

use super::connect::Work;
use super::failure::Failure;
use super::hear::Hearing;
use super::limits::{BETWEEN_EMPTY_POLLS, BETWEEN_POLLS, TIMELINE_EVENTS};
use super::{Connection, Event, Patience};

/// State that a room needs to work beside ours: who is in it, what it is called, whether and how it is encrypted.
const STATE: &[&str] = &[
    "m.room.create",
    "m.room.member",
    "m.room.name",
    "m.room.canonical_alias",
    "m.room.encryption",
    "m.room.history_visibility",
    "m.room.join_rules",
    "m.room.power_levels",
    "m.room.tombstone",
];

/// Listens until the token does not hold any more.
pub(super) async fn run(work: &Work) {
    let parts = &work.parts;
    let patience = &parts.options.patience;
    let mut hearing = Hearing::default();
    // Failures since the last success; before the first answer it is not known that we are online.
    let mut failures: Option<u32> = None;
    loop {
        let settings = SyncSettings::new()
            .filter(Wanted::FilterDefinition(filter(&parts.options.prefix)))
            // With a homeserver that was away, the first answer tells that it is back, news or not.
            .timeout(if failures == Some(0) { patience.poll } else { Duration::ZERO })
            .set_presence(PresenceState::Offline);
        let begun = Instant::now();
        // Boxed: the SDK's future is some tens of kilobytes.
        match Box::pin(work.sdk.sync_once(settings)).await {
            Ok(response) => {
                if failures.replace(0) != Some(0) {
                    parts.tell(Event::Connection(Connection::Online)).await;
                    work.queue().resume();
                    work.wake.notify(usize::MAX);
                }
                for event in hearing.hear(work, &response).await {
                    parts.tell(event).await;
                }
                work.saw(response.rooms.joined.keys());
                let least = if is_empty(&response) { BETWEEN_EMPTY_POLLS } else { BETWEEN_POLLS };
                sleep_until(begun + least).await;
            }
            Err(e) => match Failure::of(&e) {
                Failure::LoggedOut(why) => {
                    parts.tell(Event::Connection(Connection::LoggedOut { why })).await;
                    return;
                }
                Failure::Again { why, after } => wait(work, &mut failures, why, after).await,
                // It says no to what it always takes: somebody else answers in its place.
                Failure::Refused(why) => wait(work, &mut failures, why, None).await,
            },
        }
    }
}

async fn wait(work: &Work, failures: &mut Option<u32>, why: String, after: Option<Duration>) {
    let count = failures.unwrap_or(0) + 1;
    *failures = Some(count);
    let retry_in = after.unwrap_or(Duration::ZERO).max(pause(&work.parts.options.patience, count));
    work.parts.tell(Event::Connection(Connection::Offline { why, retry_in })).await;
    sleep(retry_in).await;
}

/// How long to wait after so many failures in a row.
pub(super) fn pause(patience: &Patience, failures: u32) -> Duration {
    let doubled = patience.first_pause.saturating_mul(1 << failures.saturating_sub(1).min(20));
    // Between half of it and all of it: many nodes see the same homeserver come back.
    let random = RandomState::new().build_hasher().finish();
    doubled.min(patience.most_pause).mul_f64(0.5 + (random % 1024) as f64 / 2048.0)
}

fn is_empty(response: &SyncResponse) -> bool {
    response.rooms.is_empty() && response.to_device.is_empty()
}

/// What is wanted: rooms' state and ours, of the timeline ours alone. Members whole, not only those who spoke: whose
/// state counts depends on who is a member.
fn filter(prefix: &str) -> FilterDefinition {
    let ours = format!("{prefix}*");
    let types = |more: &[&str]| Some(more.iter().map(ToString::to_string).chain([ours.clone()]).collect());
    let mut state = RoomEventFilter::default();
    state.types = types(STATE);
    let mut timeline = RoomEventFilter::default();
    let spoken: Vec<_> = STATE.iter().copied().chain(["m.room.encrypted"]).collect();
    timeline.types = types(&spoken);
    timeline.limit = Some(TIMELINE_EVENTS.into());
    let mut room = RoomFilter::default();
    room.state = state;
    room.timeline = timeline;
    room.ephemeral = RoomEventFilter::ignore_all();
    room.account_data = RoomEventFilter::ignore_all();
    let mut all = FilterDefinition::default();
    all.room = room;
    all.presence = Filter::ignore_all();
    all.account_data = Filter::ignore_all();
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_grow_to_the_longest_and_differ() {
        let patience = Patience::default();
        for failures in 1..64 {
            let whole = patience.first_pause * 2_u32.pow((failures - 1).min(20));
            let whole = whole.min(patience.most_pause);
            for _ in 0..20 {
                let pause = pause(&patience, failures);
                assert!(pause >= whole / 2 && pause <= whole, "{failures}: {pause:?}");
            }
        }
        let some: std::collections::BTreeSet<_> = (0..20).map(|_| pause(&patience, 9)).collect();
        assert!(some.len() > 5);
    }
}
