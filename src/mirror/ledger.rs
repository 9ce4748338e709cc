//! What is stored and what rooms' catalogues say of it, held against each other. Blocks.

use std::collections::HashSet;

use crate::base::{PeerId, Sha256};
use crate::catalogue::{self, Change, Entry, Root};
use crate::members::MembersError;
use crate::resolve::images::Spot;

use super::Inner;
use super::look::{How, Pages, Tags};

/// What a change has made of rooms' catalogues.
pub(super) type Published = Vec<(String, Root, Vec<Change>)>;

impl Inner {
    /// Puts artifacts into the catalogues of the rooms that mirror them. Blocks.
    pub(super) fn put(
        &self,
        rooms: &[String],
        artifacts: &[Sha256],
        how: How,
    ) -> Result<Published, MembersError> {
        if rooms.is_empty() || !self.options.gives {
            return Ok(Vec::new());
        }
        self.put_entries(rooms, &self.look.entries(artifacts, how)?)
    }

    /// The same of what the tags of a repository mean.
    pub(super) fn put_tagged(&self, rooms: &[String], spot: &Spot) -> Result<Published, MembersError> {
        if rooms.is_empty() || !self.options.gives {
            return Ok(Vec::new());
        }
        self.put_entries(rooms, &self.look.tagged(spot)?)
    }

    fn put_entries(&self, rooms: &[String], entries: &[Entry]) -> Result<Published, MembersError> {
        let mut published = Vec::new();
        for room in rooms {
            let own = self.members.own(room);
            let mut changes = Vec::new();
            for entry in entries.iter().filter(|entry| self.members.in_scope(room, &entry.purl)) {
                changes.extend(self.change(own.as_ref(), entry)?);
            }
            self.publish(room, changes, &mut published)?;
        }
        Ok(published)
    }

    /// What an entry changes of a catalogue.
    fn change(&self, own: Option<&Root>, entry: &Entry) -> Result<Option<Change>, MembersError> {
        let known = match own {
            Some(own) => catalogue::find(own, &entry.purl, &entry.file, &|cid| self.look.block(cid))?,
            None => None,
        };
        let first_seen =
            known.as_ref().and_then(|known| known.first_seen).into_iter().chain(entry.first_seen).min();
        let entry = Entry { first_seen, ..entry.clone() };
        Ok((known.as_ref() != Some(&entry)).then(|| Change::put(entry)))
    }

    /// Takes artifacts out of all catalogues, of those that are still gone. Blocks.
    pub(super) fn remove(
        &self,
        rooms: &[String],
        gone: &HashSet<Sha256>,
        own: &PeerId,
    ) -> Result<Published, MembersError> {
        let mut listed = HashSet::new();
        for sha256 in gone {
            let is_listed = self.store.listings(sha256)?.iter().any(|listing| listing.peer == *own);
            if is_listed && self.store.describe(&sha256.digest())?.is_none() {
                listed.insert(*sha256);
            }
        }
        let mut published = Vec::new();
        if listed.is_empty() {
            return Ok(published);
        }
        for room in rooms {
            let mut changes = Vec::new();
            self.members.own_entries(room, &mut |entry| {
                if entry.sha256().is_some_and(|sha256| listed.contains(&sha256)) {
                    changes.push(Change::Remove { purl: entry.purl, file: entry.file });
                }
            })?;
            self.publish(room, changes, &mut published)?;
        }
        Ok(published)
    }

    /// Takes out of a room's catalogue what does not hold any more. Blocks.
    pub(super) fn weed(&self, room: &str) -> Result<Published, MembersError> {
        let (mut changes, mut failure) = (Vec::new(), None);
        let (mut tags, mut pages) = (Tags::default(), Pages::default());
        self.members.own_entries(room, &mut |entry| {
            let wanted = self.options.gives && self.members.in_scope(room, &entry.purl);
            match if wanted { self.look.holds(&entry, &mut tags, &mut pages) } else { Ok(false) } {
                Ok(true) => {}
                Ok(false) => changes.push(Change::Remove { purl: entry.purl, file: entry.file }),
                Err(e) => failure = Some(e),
            }
        })?;
        if let Some(e) = failure {
            return Err(e.into());
        }
        let mut published = Vec::new();
        self.publish(room, changes, &mut published)?;
        Ok(published)
    }

    fn publish(
        &self,
        room: &str,
        changes: Vec<Change>,
        published: &mut Published,
    ) -> Result<(), MembersError> {
        if changes.is_empty() {
            return Ok(());
        }
        match self.members.publish(room, changes.clone()) {
            Ok(root) => {
                published.push((room.to_owned(), root, changes));
                Ok(())
            }
            // Left a moment ago, perhaps joined again since.
            Err(MembersError::NoRoom(_) | MembersError::Overtaken) => Ok(()),
            Err(e) => Err(e),
        }
    }
}
