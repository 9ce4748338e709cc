//! What a careful reader would say about a configuration that is valid.

use std::collections::HashSet;
use std::fmt;
use std::path::Path;
use std::time::Duration;

use rustix::fs::Access;
use serde::Serialize;

use crate::base::{Protocol, is_near};
use crate::members::Mode;
use crate::wire::room::Allow;

use super::index::looks_internal;
use super::{Budget, Clients, Config, Origin, Rooms, is_loopback};

/// One remark.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// How bad it is.
    pub severity: Severity,
    /// What is the matter, and what to do.
    pub text: String,
}

/// How bad a finding is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Severity {
    /// Good to know.
    Note,
    /// Works, but probably not as meant.
    Warning,
    /// Does not work.
    Error,
}

impl fmt::Display for Severity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Note => "note",
            Self::Warning => "warning",
            Self::Error => "error",
        })
    }
}

impl Config {
    /// Remarks, the worst first. Looks at the disk that `data` is on; asks no network.
    pub fn check(&self) -> Vec<Finding> {
        let mut found = Vec::new();
        self.check_listen(&mut found);
        self.check_indexes(&mut found);
        self.check_registries(&mut found);
        self.check_apt(&mut found);
        self.check_freshness(&mut found);
        self.check_rooms(&mut found);
        check_disk(self, &mut found);
        found.sort_by_key(|finding| std::cmp::Reverse(finding.severity));
        found
    }

    fn check_listen(&self, found: &mut Vec<Finding>) {
        if self.near.lan && self.listen.ip().is_unspecified() {
            found.note(
                "lan = true: everybody on the local network can read what is cached, private indexes too"
                    .into(),
            );
        } else if !self.listen.ip().is_loopback() {
            found.warning(format!(
                "listen = {}: everybody who reaches this address can read what is cached, private indexes too",
                self.listen
            ));
        }
        if self.listen.port() == 0 {
            found.warning(
                "listen: port 0 is another port at each start, which no client can be set up for".into(),
            );
        }
    }

    fn check_indexes(&self, found: &mut Vec<Finding>) {
        if self.pypi.is_empty() {
            let text = "no Python index is known: name one with [[pypi]]".to_owned();
            // Whoever names a registry may want no more than that.
            match self.oci.iter().any(|registry| registry.origin != Origin::WellKnown) {
                true => found.note(text),
                false => found.error(text),
            }
        }
        let mut urls = HashSet::new();
        let mut owned = HashSet::new();
        let mut public_before = None;
        for index in &self.pypi {
            let name = &index.name;
            if !urls.insert(&index.url) {
                found.warning(format!("index {name} has the same url as one before it and is never of use"));
            }
            for url in [&index.url].into_iter().chain(&index.files) {
                if url.scheme() == "http" && !is_loopback(url) {
                    let risk = if index.password.is_some() { ", and reads the password" } else { "" };
                    found.warning(format!(
                        "index {name}: {url} is plain http; whoever is on the way decides what is installed{risk}"
                    ));
                }
            }
            if is_loopback(&index.url)
                && index.url.port_or_known_default() == Some(self.listen.port())
                && index.url.path().starts_with("/pypi/simple/")
            {
                found.error(format!("index {name}: {} is dpm itself", index.url));
            }
            for glob in &index.owns {
                if !owned.insert(glob) {
                    found.warning(format!("index {name} owns {glob:?}, which one before it owns already"));
                }
            }
            if index.username.is_some() && index.password.is_none() {
                found.note(format!("index {name} has a username and no password"));
            }
            if !index.private {
                public_before.get_or_insert(name);
                if looks_internal(&index.url) {
                    found.note(format!(
                        "index {name} seems to be on a private network; private = true keeps it from peers"
                    ));
                }
                continue;
            }
            match public_before {
                _ if !index.owns.is_empty() => {}
                Some(public) => found.warning(format!(
                    "private index {name} comes after public {public} and owns no names: whoever uploads one of its \
                     names there is installed instead; put it first, or say owns = [\"corp-*\"]"
                )),
                None if self.pypi.len() > 1 => found.warning(format!(
                    "private index {name} owns no names: every name is asked of it, and its names of others when it \
                     fails; say owns = [\"corp-*\"]"
                )),
                None => {}
            }
        }
    }

    fn check_registries(&self, found: &mut Vec<Finding>) {
        for registry in &self.oci {
            let name = &registry.name;
            for url in [&registry.url].into_iter().chain(&registry.files) {
                if url.scheme() == "http" && !is_loopback(url) {
                    let risk = if registry.password.is_some() { ", and reads the password" } else { "" };
                    found.warning(format!(
                        "registry {name}: {url} is plain http; whoever is on the way decides what a tag means{risk}"
                    ));
                }
            }
            if is_loopback(&registry.url) && registry.url.port_or_known_default() == Some(self.listen.port())
            {
                found.error(format!("registry {name}: {} is dpm itself", registry.url));
            }
            match (&registry.username, &registry.password) {
                (None, Some(_)) => found.warning(format!(
                    "registry {name} has a password and no username, and is asked without either"
                )),
                (Some(_), None) => found.warning(format!(
                    "registry {name} has a username and no password, and is asked without either"
                )),
                _ => {}
            }
            let open = !self.listen.ip().is_loopback();
            match &registry.clients {
                Clients::Anyone if registry.private && open => found.warning(format!(
                    "private registry {name} has clients = \"anyone\": everybody who reaches {} gets its images",
                    self.listen
                )),
                Clients::Password(..) if open => found.note(format!(
                    "registry {name}: clients show their password to {} in the clear; put TLS in front of it",
                    self.listen
                )),
                _ => {}
            }
            if registry.root && !registry.hosts.iter().any(|host| host == "docker.io") {
                found.note(format!(
                    "registry {name} is at the root: docker's registry-mirrors get its images for those of docker.io"
                ));
            }
            if !registry.private && looks_internal(&registry.url) {
                found.note(format!(
                    "registry {name} seems to be on a private network; private = true keeps it from peers"
                ));
            }
        }
    }

    fn check_apt(&self, found: &mut Vec<Finding>) {
        for url in self.apt.iter().flatten().map(|source| &source.url) {
            if is_loopback(url) && url.port_or_known_default() == Some(self.listen.port()) {
                found.error(format!("apt source {url} is dpm itself"));
            }
        }
    }

    fn check_freshness(&self, found: &mut Vec<Finding>) {
        if self.freshness.ttl > self.freshness.max_ttl {
            found.warning("[freshness] ttl is longer than max_ttl, which bounds it".into());
        }
        if self.offline && self.proxy.is_some() {
            found.note("proxy is not used while offline".into());
        }
    }

    fn check_rooms(&self, found: &mut Vec<Finding>) {
        let rooms = &self.rooms;
        if *rooms == Rooms::default() {
            return;
        }
        if !self.near.swarm {
            found.warning(
                "[rooms] is of no use with swarm = false: members could neither be asked nor answered".into(),
            );
        }
        if rooms.max_age < RENEWED {
            found.warning(format!(
                "[rooms] max_age is shorter than {} hours, the time after which members renew their word: it will seem \
                 too old in between",
                RENEWED.as_secs() / 3600
            ));
        }
        for address in &rooms.advertise {
            let near = address.iter().any(|part| match part {
                Protocol::Ip4(ip) => is_near(ip.into()),
                Protocol::Ip6(ip) => is_near(ip.into()),
                _ => false,
            });
            if near && rooms.addresses == Allow::Global {
                found.warning(format!(
                    "[rooms] advertise: {address} is within a private network, where members dial only with addresses = \
                     \"all\""
                ));
            }
        }
        if let Budget::Bytes(store) = self.store.budget
            && rooms.mirror == Mode::Follow
            && rooms.budget_bytes > store
        {
            found.warning(format!(
                "[rooms] budget is {} bytes and that of the [store] {store}: what is fetched beforehand pushes out the \
                 rest",
                rooms.budget_bytes
            ));
        }
        if rooms.pace.per_second > 10.0 {
            found.note(
                "[rooms] pace: a homeserver that is not told of it answers so many events with refusals"
                    .into(),
            );
        }
    }
}

/// How often members say anew what they said, at the least.
const RENEWED: Duration = Duration::from_secs(12 * 3600);

fn check_disk(config: &Config, found: &mut Vec<Finding>) {
    let data = config.data.display();
    if config.data.exists() && !config.data.is_dir() {
        return found.error(format!("data = {data} is no directory"));
    }
    // Made at the first start: what counts is the directory that it is made in.
    let Some(there) = config.data.ancestors().find(|dir: &&Path| dir.exists()) else {
        return found.error(format!("data = {data} is nowhere"));
    };
    if rustix::fs::access(there, Access::WRITE_OK | Access::EXEC_OK).is_err() {
        found.error(format!("data = {data}: {} is not writable for this user", there.display()));
    }
    match rustix::fs::statvfs(there) {
        Err(e) => found.warning(format!("the disk of {data} cannot be asked for its size: {e}")),
        Ok(disk) => {
            let total = disk.f_blocks.saturating_mul(disk.f_frsize);
            let margin = config.store.free_margin_bytes;
            if let Budget::Bytes(budget) = config.store.budget
                && budget > total
            {
                found.warning(format!(
                    "[store] budget is {budget} bytes and the whole disk {total}: free_margin will be the limit"
                ));
            }
            if margin >= total {
                found.error(format!(
                    "[store] free_margin is {margin} bytes and the whole disk {total}: nothing will be cached"
                ));
            } else if disk.f_bavail.saturating_mul(disk.f_frsize) < margin {
                found.warning(format!("less than [store] free_margin is free on the disk of {data}"));
            }
        }
    }
}

/// Short words for adding findings.
trait Found {
    fn note(&mut self, text: String);
    fn warning(&mut self, text: String);
    fn error(&mut self, text: String);
}

impl Found for Vec<Finding> {
    fn note(&mut self, text: String) {
        self.push(Finding { severity: Severity::Note, text });
    }
    fn warning(&mut self, text: String) {
        self.push(Finding { severity: Severity::Warning, text });
    }
    fn error(&mut self, text: String) {
        self.push(Finding { severity: Severity::Error, text });
    }
}
