//! What a room mirrors: read from its state, and changed by as few events as that takes.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use futures_lite::future;
use serde_json::{Value, json};

use super::{Change, Failure};
use crate::room::{Client, Content, Kind, RoomId};
use crate::wire::room::{Pattern, RoomError, SCOPE_EVENT, Scope, read_patterns, rearranged};

/// Bytes of scope events that a room is made with; more are sent one by one. A proxy in front of a homeserver commonly
/// takes requests of 1 MiB.
const START_BYTES: usize = 512 << 10;

/// Time for one event. The usual pace is one in five seconds, and a homeserver may demand a pause.
const EVENT_TIME: Duration = Duration::from_secs(180);

/// Time until the homeserver tells of what it has taken.
const ECHO_TIME: Duration = Duration::from_secs(30);

/// Between two looks for that.
const LOOK: Duration = Duration::from_millis(100);

/// State key and content of a scope event.
pub(super) type Part = (String, Content);

/// The events that a new room is made with, and those that are sent when it is there.
pub(super) fn from_the_start(text: &str) -> Result<(Vec<Part>, Vec<Part>), Failure> {
    let (mut start, mut later, mut bytes) = (Vec::new(), Vec::new(), 0);
    for (key, content) in parts(&BTreeMap::new(), &patterns(text)?)? {
        bytes += content.as_str().len();
        match bytes <= START_BYTES {
            true => start.push((key, content)),
            false => later.push((key, content)),
        }
    }
    Ok((start, later))
}

/// One a line.
fn patterns(text: &str) -> Result<BTreeSet<Pattern>, Failure> {
    let read = |line: &str| Pattern::parse(line).map_err(|e| format!("{line}: {e}"));
    let patterns: BTreeSet<Pattern> =
        text.lines().filter(|line| !line.is_empty()).map(read).collect::<Result<_, _>>()?;
    bounded(&patterns)?;
    Ok(patterns)
}

/// What is more than any node would read is refused here.
fn bounded(patterns: &BTreeSet<Pattern>) -> Result<(), Failure> {
    Ok(Scope::default().extend(patterns.iter().cloned())?)
}

fn parts(present: &BTreeMap<String, Vec<Pattern>>, wanted: &BTreeSet<Pattern>) -> Result<Vec<Part>, Failure> {
    let changes = rearranged(present, wanted)?;
    changes.into_iter().map(|(key, content)| Ok((key, Content::parse(&content)?))).collect()
}

/// The scope of a room that this node's account is in.
pub(super) struct Scoping<'a> {
    pub(super) client: &'a Client,
    pub(super) room: &'a RoomId,
}

/// The scope events of a room, by their keys.
#[derive(Default)]
struct Present {
    patterns: BTreeMap<String, Vec<Pattern>>,
    /// Those that nobody can read, and why.
    unreadable: BTreeMap<String, String>,
}

impl Scoping<'_> {
    /// What the room mirrors after a change, and how many events that took.
    pub(super) async fn change(
        &self,
        change: Change,
        text: &str,
        progress: &mut dyn FnMut(Value),
    ) -> Result<Value, Failure> {
        let Present { patterns: present, unreadable } = self.present().await?;
        let before: BTreeSet<Pattern> = present.values().flatten().cloned().collect();
        let given = patterns(text)?;
        let wanted = match change {
            Change::Nothing => before.clone(),
            Change::Add => &before | &given,
            Change::Replace => given,
        };
        let mut changes = Vec::new();
        if change != Change::Nothing {
            bounded(&wanted)?;
            changes = parts(&present, &wanted)?;
        }
        if change == Change::Replace {
            let left = unreadable.keys().filter(|key| !changes.iter().any(|(changed, _)| changed == *key));
            let left: Vec<_> = left.cloned().collect();
            for key in left {
                changes.push((key, Content::parse("{}")?));
            }
        }
        let events = changes.len();
        self.send(changes, progress).await?;
        let unreadable: Vec<_> =
            unreadable.iter().map(|(key, why)| json!({"key": key, "why": why})).collect();
        Ok(json!({
            "room": self.room.as_str(), "packages": wanted.iter().map(Pattern::as_str).collect::<Vec<_>>(),
            "added": wanted.difference(&before).count(), "removed": before.difference(&wanted).count(),
            "events": events, "unreadable": unreadable,
        }))
    }

    async fn present(&self) -> Result<Present, Failure> {
        let mut present = Present::default();
        for event in self.client.read_state(self.room, &Kind::parse(SCOPE_EVENT)?).await? {
            match read_patterns(event.content.as_str().as_bytes()) {
                Ok(patterns) => drop(present.patterns.insert(event.state_key, patterns)),
                Err(RoomError::Withdrawn) => {}
                Err(e) => drop(present.unreadable.insert(event.state_key, e.to_string())),
            }
        }
        Ok(present)
    }

    /// Sends events one after another, at the pace that the homeserver allows, and waits until they are the room's
    /// state: whoever changes the scope next has to see them.
    pub(super) async fn send(
        &self,
        changes: Vec<Part>,
        progress: &mut dyn FnMut(Value),
    ) -> Result<(), Failure> {
        let kind = Kind::parse(SCOPE_EVENT)?;
        let of = changes.len();
        for (sent, (key, content)) in changes.iter().enumerate() {
            progress(json!({"events": sent, "of": of}));
            let setting = async { Some(self.client.set_state(self.room, &kind, key, content).await) };
            let outcome = match future::or(setting, late(EVENT_TIME)).await {
                Some(outcome) => outcome.map_err(|e| e.to_string()),
                None => Err("the homeserver does not answer".to_owned()),
            };
            outcome.map_err(|why| {
                format!("{sent} of {of} events of the scope are set, the same order sets the others: {why}")
            })?;
        }
        self.echo(&changes).await
    }

    /// Waits until these are the room's state here. A room that was just made comes piece by piece.
    pub(super) async fn echo(&self, changes: &[Part]) -> Result<(), Failure> {
        let echo = async {
            while !self.shows(changes).await? {
                async_io::Timer::after(LOOK).await;
            }
            Ok(())
        };
        match future::or(async { Some(echo.await) }, late(ECHO_TIME)).await {
            Some(outcome) => outcome,
            // It has them; when it says so is its own affair.
            None => Ok(()),
        }
    }

    async fn shows(&self, changes: &[Part]) -> Result<bool, Failure> {
        let present = self.present().await?;
        Ok(changes.iter().all(|(key, content)| {
            let shown = present.patterns.get(key);
            read_patterns(content.as_str().as_bytes()).ok().as_ref() == shown
        }))
    }
}

async fn late<T>(time: Duration) -> Option<T> {
    async_io::Timer::after(time).await;
    None
}
