//! The box as people's machines look for it: a web page, a proxy for apt, and a name such as `dpm.local`.
//!
//! The crate `mdns-sd` does the work, on a thread of its own: it asks whether names are free before it uses them,
//! answers, follows interfaces, and says goodbye.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_io::Timer;
use futures_lite::FutureExt;
use mdns_sd::{DaemonEvent, DaemonStatus, Receiver, ServiceDaemon, ServiceInfo, UnregisterStatus};

use crate::rt::Tasks;

use super::LanError;

/// What is published.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServiceOptions {
    /// The host name wanted, without `.local`: one label of letters, digits and hyphens. With `dpm` taken by another
    /// machine it becomes `dpm-2`, and so on.
    pub name: String,
    /// The HTTP listener's port.
    pub port: u16,
    /// The services' name for people, as in "dpm on HOST". Cut to [`INSTANCE_BYTES`]; dots become spaces.
    pub instance: String,
    /// Whether to publish `_apt_proxy._tcp` too: only who answers apt may, for machines that find it ask nobody else.
    pub apt: bool,
}

/// The published services. Dropped, they are withdrawn soon, without waiting.
pub struct Services {
    daemon: ServiceDaemon,
    full_names: Vec<String>,
    name: Arc<Mutex<String>>,
}

impl Services {
    /// Publishes `_http._tcp`, `_apt_proxy._tcp` if wanted, and the host name on every interface that multicasts.
    ///
    /// Returns at once; within a second or so names are found free, or changed.
    ///
    /// # Errors
    /// [`LanError::Name`] for a name that is none, [`LanError::Services`] when there is no socket or thread to be had.
    pub fn publish(options: &ServiceOptions, tasks: &Tasks) -> Result<Self, LanError> {
        let wanted = options.name.to_ascii_lowercase();
        if !is_label(&wanted) {
            return Err(LanError::Name(options.name.clone()));
        }
        let (host, instance) = (format!("{wanted}.{DOMAIN}."), instance(&options.instance));
        let daemon = ServiceDaemon::new().map_err(LanError::Services)?;
        let name = Arc::new(Mutex::new(host.clone()));
        let mut services = Self { daemon, full_names: Vec::new(), name: name.clone() };
        let events = services.daemon.monitor().map_err(LanError::Services)?;
        let no_properties: &[(&str, &str)] = &[];
        let apt = options.apt.then_some((APT_PROXY, no_properties));
        for (kind, properties) in [(HTTP, &[("path", "/")][..])].into_iter().chain(apt) {
            let kind = format!("{kind}.{DOMAIN}.");
            let info = ServiceInfo::new(&kind, &instance, &host, "", options.port, properties)
                .map_err(LanError::Services)?
                .enable_addr_auto();
            services.full_names.push(info.get_fullname().to_owned());
            services.daemon.register(info).map_err(LanError::Services)?;
        }
        tasks.spawn(watch(events, host, name));
        Ok(services)
    }

    /// The host name, `.local` included, as it is now. With several networks, on each of which others have names, it
    /// is the one of the last that had to change.
    pub fn name(&self) -> String {
        let name = self.name.lock().expect("nothing panics under this lock");
        name.trim_end_matches('.').to_owned()
    }

    /// Withdraws everything, and waits until the network was told, [`STOP_TIME`] at most.
    pub async fn stop(self) {
        let withdrawn: Vec<_> = self.full_names.iter().map(|name| self.daemon.unregister(name)).collect();
        let all = async {
            for receiver in withdrawn.into_iter().flatten() {
                // An error: the thread has ended.
                let _: Result<UnregisterStatus, _> = receiver.recv_async().await;
            }
            if let Ok(receiver) = self.daemon.shutdown() {
                let _: Result<DaemonStatus, _> = receiver.recv_async().await;
            }
        };
        let late = async {
            Timer::after(STOP_TIME).await;
        };
        all.or(late).await;
    }
}

impl Drop for Services {
    fn drop(&mut self) {
        // Ended already, or ended now.
        let _ = self.daemon.shutdown();
    }
}

/// Follows the host's name until the services are gone.
async fn watch(events: Receiver<DaemonEvent>, wanted: String, name: Arc<Mutex<String>>) {
    while let Ok(event) = events.recv_async().await {
        match event {
            DaemonEvent::NameChange(change) if change.original == wanted => {
                log::info!(
                    "{wanted} is taken on {}: this machine is {} there",
                    change.intf_name,
                    change.new_name
                );
                *name.lock().expect("nothing panics under this lock") = change.new_name;
            }
            DaemonEvent::Error(error) => log::debug!("publishing services: {error}"),
            _ => {}
        }
    }
}

fn is_label(name: &str) -> bool {
    let letters = name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-');
    letters && (1..=NAME_BYTES).contains(&name.len()) && !name.starts_with('-') && !name.ends_with('-')
}

/// The text as one label, which a dot would end.
fn instance(text: &str) -> String {
    let text: String = text.chars().map(|c| if c == '.' || c.is_control() { ' ' } else { c }).collect();
    let mut length = text.len().min(INSTANCE_BYTES);
    while !text.is_char_boundary(length) {
        length -= 1;
    }
    match text[..length].trim() {
        "" => "dpm".into(),
        text => text.into(),
    }
}

const HTTP: &str = "_http._tcp";
/// What `auto-apt-proxy` and `squid-deb-proxy-client` look for.
const APT_PROXY: &str = "_apt_proxy._tcp";
const DOMAIN: &str = "local";

/// Longest host name: a label is 63 bytes, and a number may have to be added.
const NAME_BYTES: usize = 59;

/// Longest instance name in bytes, likewise.
pub const INSTANCE_BYTES: usize = 57;

/// Longest that saying goodbye may take: the thread sends it twice within a moment, when it is not stuck.
pub const STOP_TIME: Duration = Duration::from_secs(2);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names() {
        for name in ["dpm", "dpm-2", "a", "box1"] {
            assert!(is_label(name), "{name}");
        }
        for name in ["", "-a", "a-", "a.b", "a b", "ä", "dpm.local", &"x".repeat(60)] {
            assert!(!is_label(name), "{name}");
        }
    }

    #[test]
    fn instances() {
        let rows = [("dpm on box", "dpm on box"), ("dpm on a.b", "dpm on a b"), (" \n ", "dpm"), ("", "dpm")];
        for (text, want) in rows {
            assert_eq!(instance(text), want, "{text:?}");
        }
        let long = instance(&"ä".repeat(99));
        assert!(long.len() <= INSTANCE_BYTES && long.chars().all(|c| c == 'ä'), "{long}");
    }
}
