//! Says what is due: writes events, signs them and queues them with the rooms' client.

use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::room::{Content, Kind, RoomError, RoomId};
use crate::wire::room::{Context, INDEX_EVENT, IndexNote, NODE_EVENT, NodeAdvert, PACKAGES_EVENT, Packages};

use super::notes::Notes;
use super::telling::{Say, Standing, Telling};
use super::{Inner, LOCK, Near, standing};

/// Time for the swarm to find out where it listens.
const LISTEN_TIME: Duration = Duration::from_secs(10);

/// This program.
const AGENT: &str = concat!("dpm/", env!("CARGO_PKG_VERSION"));

/// What this node is now; `None` while that is being found out.
pub(super) fn standing(inner: &Inner, near: &Near, started: Instant) -> Option<Standing> {
    let listeners = near.swarm.listeners();
    if listeners.is_empty() && started.elapsed() < LISTEN_TIME {
        return None;
    }
    let options = &inner.options;
    Some(Standing {
        addresses: standing::addresses(&near.swarm.peer_id(), &listeners, &options.advertise, options.allow),
        name: options.name.clone(),
        agent: AGENT.into(),
    })
}

/// Says what is due in one room.
pub(super) async fn tell(
    inner: &Arc<Inner>,
    near: &Near,
    room: &str,
    telling: &mut Telling,
    notes: Option<&mut Notes>,
    standing: &Standing,
) {
    telling.check(standing, inner.clock.now(), Instant::now());
    loop {
        let now = Instant::now();
        let said = match telling.say(now) {
            Say::Nothing => break,
            Say::State => state(inner, near, room, telling, standing).await.map(|advert| {
                telling.said_state(advert, now);
            }),
            Say::Packages(added, removed) => {
                let Some(root) = telling.root() else { return telling.does_not_fit(now) };
                let packages = Packages { peer: near.swarm.peer_id(), root, sequence: 0, added, removed };
                match self::packages(inner, near, room, packages).await {
                    Ok(Some(number)) => {
                        telling.said_packages(root, number, now);
                        Ok(())
                    }
                    Ok(None) => {
                        telling.does_not_fit(now);
                        Ok(())
                    }
                    Err(e) => Err(e),
                }
            }
        };
        if let Err(e) = said {
            log::debug!("rooms: {room} cannot be told now: {e}");
            telling.failed(now);
            break;
        }
    }
    if let Some(notes) = notes {
        let news = notes.take(&mut inner.notes.lock().expect(LOCK), Instant::now());
        if !news.is_empty()
            && let Err(e) = index(inner, near, room, news).await
        {
            log::debug!("rooms: {room} is not told of index pages: {e}");
        }
    }
}

async fn state(
    inner: &Arc<Inner>,
    near: &Near,
    room: &str,
    telling: &Telling,
    standing: &Standing,
) -> Result<NodeAdvert, RoomError> {
    let user = user(inner)?;
    let newer = telling.number().filter(|number| Some(*number) > telling.state_number());
    let advert = NodeAdvert {
        peer: near.swarm.peer_id(),
        addresses: standing.addresses.clone(),
        name: standing.name.clone(),
        agent: standing.agent.clone(),
        catalogue: telling.root(),
        sequence: 0,
        time_ms: inner.clock.now().0,
    };
    let (theirs, near_, id) = (inner.clone(), near.clone(), room.to_owned());
    let write = move || {
        let sequence = newer.unwrap_or_else(|| theirs.members.next_sequence(&id));
        let advert = NodeAdvert { sequence, ..advert };
        let context = Context { room: &id, sender: &user };
        let written = advert.write(&context, &near_.identity.public_key(), |m| near_.identity.sign(m));
        written.map(|json| (json, advert))
    };
    let (json, advert) = inner.disk.run(write).await.map_err(|e| RoomError::Refused(e.to_string()))?;
    let (id, kind) = (RoomId::parse(room)?, Kind::parse(NODE_EVENT)?);
    inner.client.send_state(&id, &kind, &advert.peer.to_string(), &Content::parse(&json)?).await?;
    Ok(advert)
}

/// Gives the event's number, or nothing where one event does not hold it all.
async fn packages(
    inner: &Arc<Inner>,
    near: &Near,
    room: &str,
    packages: Packages,
) -> Result<Option<u64>, RoomError> {
    let user = user(inner)?;
    let (theirs, near_, id) = (inner.clone(), near.clone(), room.to_owned());
    let write = move || {
        let packages = Packages { sequence: theirs.members.next_sequence(&id), ..packages };
        let context = Context { room: &id, sender: &user };
        let written = packages.write(&context, &near_.identity.public_key(), |m| near_.identity.sign(m));
        written.map(|contents| (contents, packages.sequence))
    };
    let (contents, number) = inner.disk.run(write).await.map_err(|e| RoomError::Refused(e.to_string()))?;
    let [content] = contents.as_slice() else { return Ok(None) };
    let (id, kind) = (RoomId::parse(room)?, Kind::parse(PACKAGES_EVENT)?);
    inner.client.send(&id, &kind, &Content::parse(content)?).await?;
    Ok(Some(number))
}

async fn index(
    inner: &Arc<Inner>,
    near: &Near,
    room: &str,
    indexes: Vec<(crate::base::PackageUrl, String)>,
) -> Result<(), RoomError> {
    let user = user(inner)?;
    let note = IndexNote { peer: near.swarm.peer_id(), indexes, time_ms: inner.clock.now().0 };
    let context = Context { room, sender: &user };
    let json = note.write(&context, &near.identity.public_key(), |m| near.identity.sign(m));
    let json = json.map_err(|e| RoomError::Refused(e.to_string()))?;
    let (id, kind) = (RoomId::parse(room)?, Kind::parse(INDEX_EVENT)?);
    inner.client.send(&id, &kind, &Content::parse(&json)?).await
}

fn user(inner: &Inner) -> Result<String, RoomError> {
    inner.client.status().user.map(|user| user.to_string()).ok_or(RoomError::NoSession)
}
