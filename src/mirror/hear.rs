//! From the rooms' client to `Members`: what rooms there are, who is in them, what is said.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use async_channel::{Receiver, Sender};
use futures_lite::future;

use crate::base::PeerId;
use crate::members::Heard;
use crate::resolve::PageKey;
use crate::room::{Connection, Content, Event, Kind, RoomError, RoomId, StateEvent, UserId};
use crate::wire::room::{Context, IndexNote, NODE_EVENT, NodeAdvert, PACKAGES_EVENT, SCOPE_EVENT};

use super::{Inner, LOCK};

/// Events that are taken at once.
const AT_ONCE: usize = 64;

/// Time for the client to tell of one room: it has all that on its disk.
const TELL_TIME: Duration = Duration::from_secs(30);

/// After the client could not tell, it is asked again.
const AGAIN: Duration = Duration::from_secs(30);

/// Hears until the client ends.
pub(super) async fn run(inner: Arc<Inner>, heard: Receiver<Event>) {
    let mut online = None;
    let mut retry = again(survey(&inner, Account::Same).await);
    loop {
        let next = async { Woken::Event(heard.recv().await.ok()) };
        let rung = async {
            inner.rooms.heard().await;
            Woken::Survey(Account::Changed)
        };
        let later = async {
            match retry {
                Some(at) => drop(async_io::Timer::at(at).await),
                None => future::pending().await,
            }
            Woken::Survey(Account::Same)
        };
        let asked = async {
            match inner.looks.1.recv().await {
                Ok(look) => Woken::Look(look),
                Err(_) => future::pending().await,
            }
        };
        // All in one line, for what the client tells of a room is as new as the last event that was taken, or newer: who
        // left in between is not taken for a member.
        let first = match future::or(next, future::or(future::or(rung, asked), later)).await {
            Woken::Event(Some(event)) => event,
            Woken::Event(None) => return,
            Woken::Look((room, done)) => {
                retry = again(enter(&inner, &room).await).or(retry);
                // Who asked may have gone.
                let _ = done.send(()).await;
                continue;
            }
            Woken::Survey(account) => {
                retry = again(survey(&inner, account).await);
                continue;
            }
        };
        let mut events = vec![first];
        while events.len() < AT_ONCE
            && let Ok(event) = heard.try_recv()
        {
            events.push(event);
        }
        let was_online = online;
        events.iter().for_each(|event| tell(event, &mut online));
        let came_back = events.iter().any(|e| matches!(e, Event::Connection(Connection::Online)));
        let news = take(&inner, events).await;
        if came_back && was_online != Some(true) {
            retry = again(survey(&inner, Account::Same).await);
        }
        for room in news.joined {
            retry = again(enter(&inner, &room).await).or(retry);
        }
        for note in news.notes {
            hint(&inner, note).await;
        }
    }
}

/// When what did not come about is tried again.
fn again(done: bool) -> Option<Instant> {
    (!done).then(|| Instant::now() + AGAIN)
}

enum Woken {
    Event(Option<Event>),
    Survey(Account),
    Look(Looking),
}

/// A room to be looked at, and where to say that it was.
pub(super) type Looking = (RoomId, Sender<()>);

/// Asks the loop to look at a room, and waits for that.
pub(super) async fn look_at(inner: &Inner, room: &RoomId) {
    let (done, looked) = async_channel::bounded(1);
    let asking = async {
        if inner.looks.0.send((room.clone(), done)).await.is_ok() {
            // An error is the loop's end.
            let _ = looked.recv().await;
        }
    };
    future::or(asking, async {
        async_io::Timer::after(TELL_TIME).await;
    })
    .await;
}

/// Whether somebody has logged in or out.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Account {
    Same,
    Changed,
}

/// What events had in them that is not done with.
#[derive(Default)]
struct News {
    /// Rooms that this account is in now.
    joined: BTreeSet<RoomId>,
    notes: Vec<IndexNote>,
}

/// Hands events on, in their order.
async fn take(inner: &Arc<Inner>, events: Vec<Event>) -> News {
    let user = inner.client.status().user;
    let theirs = inner.clone();
    inner.disk.run(move || theirs.hear(events, user.as_ref())).await
}

impl Inner {
    fn hear(&self, events: Vec<Event>, user: Option<&UserId>) -> News {
        let members = &self.members;
        let mut known: BTreeSet<String> = members.ids().into_iter().collect();
        let mut news = News::default();
        let mut changed = false;
        for event in events {
            let heard = match event {
                Event::Membership { room, user: who, joined } if Some(&who) == user => {
                    if joined {
                        news.joined.insert(room);
                    } else {
                        members.left(room.as_str());
                        known.remove(room.as_str());
                        self.own.ring();
                    }
                    changed = true;
                    continue;
                }
                Event::Membership { room, user, joined } => {
                    members.member(room.as_str(), user.as_str(), joined);
                    changed = true;
                    continue;
                }
                Event::State { room, .. } | Event::Timeline { room, .. }
                    if !known.contains(room.as_str()) =>
                {
                    news.joined.insert(room);
                    continue;
                }
                Event::State { room, event } => {
                    self.guard_own_word(&room, &event, user);
                    members.hear_state(
                        room.as_str(),
                        event.sender.as_str(),
                        event.kind.as_str(),
                        &event.state_key,
                        event.content.as_str().as_bytes(),
                    )
                }
                Event::Timeline { room, sender, kind, content } => members.hear_timeline(
                    room.as_str(),
                    sender.as_str(),
                    kind.as_str(),
                    content.as_str().as_bytes(),
                ),
                Event::Refused { room, kind, .. } => {
                    if [NODE_EVENT, PACKAGES_EVENT].contains(&kind.as_str()) {
                        self.refused.lock().expect(LOCK).insert(room.to_string());
                        self.own.ring();
                    }
                    continue;
                }
                Event::Connection(_) => continue,
            };
            match heard {
                Heard::Scope => self.rescope(),
                Heard::Node(_) | Heard::Packages(_) => changed = true,
                Heard::Index(note) => news.notes.push(note),
                Heard::Nothing | Heard::Refused => {}
            }
        }
        if changed {
            self.ring_all();
        }
        news
    }

    /// Somebody else has put something in the place of what this node says of itself: who comes later would not know of
    /// it, so it is said again, as often as its pace allows.
    fn guard_own_word(&self, room: &RoomId, event: &StateEvent, user: Option<&UserId>) {
        let is_own = event.kind.as_str() == NODE_EVENT
            && self.own_peer.is_some_and(|own| event.state_key == own.to_string());
        if is_own && user.is_some_and(|user| *user != event.sender) {
            self.told.lock().expect(LOCK).insert(room.to_string(), None);
            self.own.ring();
        }
    }

    fn rescope(&self) {
        self.rescope.store(true, Ordering::Relaxed);
        self.own.ring();
        self.follows.ring();
    }
}

/// Looks at all rooms of the account, as the client knows them: with the homeserver gone too. `false` when it has to be
/// done again.
async fn survey(inner: &Arc<Inner>, account: Account) -> bool {
    let listed = match in_time(inner.client.list()).await {
        Ok(listed) => listed,
        // Somebody has logged out: what was heard is nobody's any more.
        Err(RoomError::NoSession) if account == Account::Changed => {
            leave_but(inner, BTreeSet::new()).await;
            return true;
        }
        // What was heard stands until somebody logs in again.
        Err(RoomError::NoSession | RoomError::LoggedOut(_) | RoomError::Stopped) => return true,
        Err(e) => {
            log::warn!("rooms: which there are is not known: {e}");
            return false;
        }
    };
    let rooms: BTreeSet<RoomId> = listed.iter().filter(|r| !r.invited).map(|r| r.room.clone()).collect();
    // A device that has just logged in knows of no room until the homeserver has answered once.
    if inner.client.status().connection == Some(Connection::Online) {
        leave_but(inner, rooms.iter().map(|room| room.as_str().to_owned()).collect()).await;
    }
    let mut all = true;
    for room in &rooms {
        all &= enter(inner, room).await;
    }
    all
}

async fn leave_but(inner: &Arc<Inner>, rooms: BTreeSet<String>) {
    let theirs = inner.clone();
    let left = move || {
        let gone: Vec<_> = theirs.members.ids().into_iter().filter(|room| !rooms.contains(room)).collect();
        gone.iter().for_each(|room| theirs.members.left(room));
        !gone.is_empty()
    };
    if inner.disk.run(left).await {
        inner.own.ring();
        inner.ring_all();
    }
}

/// Takes up all that is known of one room that an operator has joined with dpm. In others, where a homeserver or another
/// program has put the account, nothing is told and nobody is believed. `false` when it has to be done again.
async fn enter(inner: &Arc<Inner>, room: &RoomId) -> bool {
    match in_time(enter_now(inner, room)).await {
        Ok(()) => true,
        // Left meanwhile: its event comes, or has come.
        Err(RoomError::NotJoined(_) | RoomError::NoSession | RoomError::LoggedOut(_)) => true,
        Err(e) => {
            log::warn!("rooms: {room} is not known yet: {e}");
            false
        }
    }
}

async fn enter_now(inner: &Arc<Inner>, room: &RoomId) -> Result<(), RoomError> {
    let client = &inner.client;
    if !inner.members.ids().iter().any(|id| id == room.as_str()) {
        return Ok(());
    }
    let listed = client.list().await?.into_iter().find(|listed| listed.room == *room && !listed.invited);
    let listed = listed.ok_or_else(|| RoomError::NotJoined(room.to_string()))?;
    let users = client.members(room).await?;
    let scope = client.read_state(room, &Kind::parse(SCOPE_EVENT)?).await?;
    let nodes = client.read_state(room, &Kind::parse(NODE_EVENT)?).await?;
    let (theirs, id) = (inner.clone(), room.to_string());
    let take = move || {
        let members = &theirs.members;
        if !members.ids().contains(&id) {
            // Left meanwhile.
            return;
        }
        members.joined(&id, listed.name.as_deref());
        members.set_members(&id, users.iter().map(UserId::to_string).collect());
        let mut rescope = false;
        for event in scope.iter().chain(&nodes) {
            let json = event.content.as_str().as_bytes();
            let (sender, kind) = (event.sender.as_str(), event.kind.as_str());
            rescope |= members.hear_state(&id, sender, kind, &event.state_key, json) == Heard::Scope;
        }
        if let Some(own) = theirs.own_peer {
            let said = nodes.iter().find_map(|event| {
                own_word(&id, event.sender.as_str(), &event.state_key, &event.content, &own)
            });
            theirs.told.lock().expect(LOCK).insert(id, said);
        }
        if rescope {
            theirs.rescope();
        }
        theirs.own.ring();
        theirs.ring_all();
    };
    inner.disk.run(take).await;
    Ok(())
}

/// What this node said of itself last, as the room has it.
fn own_word(room: &str, sender: &str, key: &str, content: &Content, own: &PeerId) -> Option<NodeAdvert> {
    let context = Context { room, sender };
    (key == own.to_string())
        .then(|| NodeAdvert::read(content.as_str().as_bytes(), &context, key).ok())
        .flatten()
}

async fn in_time<T>(asking: impl Future<Output = Result<T, RoomError>>) -> Result<T, RoomError> {
    future::or(asking, async {
        async_io::Timer::after(TELL_TIME).await;
        Err(RoomError::Later { why: "the rooms' client does not answer".into(), after: None })
    })
    .await
}

/// Asks the own index sooner, where somebody says that it has something new.
async fn hint(inner: &Arc<Inner>, note: IndexNote) {
    for (package, mark) in note.indexes {
        inner.notes.lock().expect(LOCK).heard(&package, &mark);
        let Some(key) = PageKey::of(&package) else { continue };
        match inner.look.resolve.hint(&key, &mark).await {
            Ok(outcome) => log::debug!("{} says that {key} changed: {outcome:?}", note.peer),
            Err(e) => log::debug!("{} says that {key} changed: {e}", note.peer),
        }
    }
}

/// A line in the log where it stands otherwise with the homeserver than before.
fn tell(event: &Event, online: &mut Option<bool>) {
    match event {
        Event::Connection(Connection::Online) => {
            if online.replace(true) != Some(true) {
                log::info!("rooms: online");
            }
        }
        Event::Connection(Connection::Offline { why, .. }) => {
            if online.replace(false) != Some(false) {
                log::warn!("rooms: the homeserver cannot be reached, which is tried again: {why}");
            }
        }
        Event::Connection(Connection::LoggedOut { why }) => {
            *online = None;
            log::warn!("rooms: logged out ({why}); `dpm room login` logs in again");
        }
        Event::Refused { room, kind, why } => log::warn!("rooms: {room} does not take {kind}: {why}"),
        Event::State { .. } | Event::Timeline { .. } | Event::Membership { .. } => {}
    }
}
