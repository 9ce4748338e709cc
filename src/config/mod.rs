//! What dpm is told: flags, environment, `dpm.toml`, and what the machine's own package clients know.
//!
//! The daemon takes a plain [`Config`] and asks nothing else. This room reads files and runs clients; it opens no
//! socket and never writes into the configuration it reads ([`crate::cli::setup`] does, with [`Handover`] as its
//! memory).

mod apt;
mod atomic;
mod check;
mod daemon_json;
mod file;
mod handover;
mod hosts_toml;
mod index;
mod learn;
mod learned;
mod machine;
mod near;
mod oci;
mod pip_conf;
mod registries_conf;
mod rooms;
mod units;
mod uv_toml;

use std::fmt;
use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use url::Url;

pub use apt::{AptSource, BadSource, learn_apt};
pub use check::{Finding, Severity};
pub use handover::{Client, Handover};
pub use index::{BadUrl, Index, Origin};
pub use learn::{LearnError, learn_pypi};
pub use learned::{LEARNED_TIME, Learned, load_learned, save_learned};
pub use machine::{Machine, RUN_TIME, RunError};
pub use near::{Near, Share};
pub use oci::Registry;
pub use rooms::{Pace as RoomPace, Rooms};

pub use crate::front::Clients;

pub use crate::resolve::Freshness;
pub use crate::store::Budget;

pub(crate) use atomic::replace;
pub(crate) use daemon_json::DaemonJson;
pub(crate) use hosts_toml::HostsToml;
pub(crate) use index::{is_loopback, without_userinfo};
pub(crate) use pip_conf::PipConf;
pub(crate) use registries_conf::{Mirror, RegistriesConf};
pub(crate) use uv_toml::UvToml;

/// Everything that the daemon needs to know before it starts.
#[derive(Clone)]
pub struct Config {
    /// Where clients connect.
    pub listen: SocketAddr,
    /// Further names under which this box is asked, a reverse proxy's: what tells of the box answers to no other.
    pub names: Vec<String>,
    /// The directory that holds the store and its index.
    pub data: PathBuf,
    /// Never ask an upstream.
    pub offline: bool,
    /// How much disk to use.
    pub store: Store,
    /// How long an index may be believed.
    pub freshness: Freshness,
    /// What is written to the log.
    pub log: Log,
    /// The nodes around.
    pub near: Near,
    /// Matrix rooms, and what their members are to this node.
    pub rooms: Rooms,
    /// The proxy on the way to upstreams; the environment's proxy variables are not used (dpm may be behind them).
    pub proxy: Option<Url>,
    /// Python indexes, in the order in which they are asked.
    pub pypi: Vec<Index>,
    /// Registries of container images; clients name them by their hosts.
    pub oci: Vec<Registry>,
    /// What apt may ask dpm for as its proxy; `None` when nobody has said yet.
    pub apt: Option<Vec<AptSource>>,
    /// What of it was learned from the machine's clients, and when; what was stated is not in there.
    pub learned: Learned,
}

/// How much disk to use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Store {
    /// The most that the store may take.
    pub budget: Budget,
    /// Bytes that stay free on the disk whatever the budget says.
    pub free_margin_bytes: u64,
}

/// What is written to the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Log {
    /// One line a request.
    pub requests: bool,
}

/// What the command line says; everything else comes from the environment, the file, or is learned.
#[derive(Clone, Debug, Default)]
pub struct Flags {
    /// `--config`: the file to read instead of the usual places.
    pub config: Option<PathBuf>,
    /// `--data`: the data directory.
    pub data: Option<PathBuf>,
    /// `--listen`.
    pub listen: Option<SocketAddr>,
    /// `--upstream NAME=URL`, NAME an ecosystem (`pypi`, `oci`); repeatable, the first is asked first, and the first
    /// registry is at the root.
    pub upstreams: Vec<String>,
    /// `--offline`.
    pub offline: bool,
    /// `--no-swarm`: no peers.
    pub no_swarm: bool,
    /// `--lan`: HTTP for the LAN too.
    pub lan: bool,
    /// `--swarm-listen MULTIADDR`, repeatable.
    pub swarm_listen: Vec<String>,
    /// `--peer MULTIADDR`, repeatable.
    pub peers: Vec<String>,
    /// `--relearn`: ask the clients again although what they said is still remembered.
    pub relearn: bool,
}

impl Config {
    /// Puts flags, environment, file and what the clients know together, in this order of weight.
    ///
    /// Runs `pip`, `uv` or `apt-get` (at most [`RUN_TIME`] each) only when nobody names their indexes and nothing younger
    /// than [`LEARNED_TIME`] is remembered. Writes nothing: the caller keeps what was learned with [`save_learned`].
    pub fn load(flags: &Flags) -> Result<Self, ConfigError> {
        Self::load_on(flags, &Machine::here())
    }

    /// [`Config::load`] with the machine given.
    pub fn load_on(flags: &Flags, machine: &Machine) -> Result<Self, ConfigError> {
        let mut config = Self::stated(flags, machine)?;
        let (now, port) = (SystemTime::now(), config.listen.port());
        let remembered = if flags.relearn { Learned::default() } else { load_learned(&config.data, now) };
        if config.pypi.is_empty() {
            config.learned.pypi = match remembered.pypi {
                Some(remembered) => Some(remembered),
                None => match learn_pypi(machine, port) {
                    Ok(learned) => Some((now, learned)),
                    // Whoever names a registry wants that, and need not have pip.
                    Err(e) if config.oci.iter().any(|r| r.origin != Origin::WellKnown) => {
                        log::info!("no Python index is served: {e}");
                        None
                    }
                    Err(e) => return Err(e.into()),
                },
            };
            config.pypi = config.learned.pypi.iter().flat_map(|(_, pypi)| pypi.clone()).collect();
        }
        if config.apt.is_none() {
            let (at, apt) = remembered.apt.unwrap_or_else(|| (now, learn_apt(machine, port)));
            config.apt = Some(apt.clone());
            config.learned.apt = Some((at, apt));
        }
        Ok(config)
    }

    /// Only what flags, environment and file say: `pypi` is empty, and `apt` is `None`, when none of them names one. Runs
    /// no client.
    pub fn stated(flags: &Flags, machine: &Machine) -> Result<Self, ConfigError> {
        let mut config = match Self::find_file(flags, machine) {
            Some(path) => file::read(&path, machine)?,
            None => Self::defaults(),
        };
        config.take_environment(machine)?;
        config.near.lan |= flags.lan;
        if config.near.lan && config.listen == Self::defaults().listen {
            config.listen = SocketAddr::from((Ipv6Addr::UNSPECIFIED, DEFAULT_PORT));
        }
        if let Some(listen) = flags.listen {
            config.listen = listen;
        }
        config.near.swarm &= !flags.no_swarm;
        let flag = |flag| move |text| ConfigError::Flag { flag, text };
        if !flags.swarm_listen.is_empty() {
            let listen = flags.swarm_listen.iter().map(|text| near::listen_address(text));
            config.near.listen = listen.collect::<Result<_, _>>().map_err(flag("--swarm-listen"))?;
        }
        for text in &flags.peers {
            config.near.peers.push(near::peer_address(text).map_err(flag("--peer"))?);
        }
        if let Some(data) = &flags.data {
            config.data.clone_from(data);
        }
        config.offline |= flags.offline;
        if !flags.upstreams.is_empty() {
            let stated = Upstreams::read(flags.upstreams.iter().map(String::as_str), &Origin::Flag);
            stated.map_err(flag("--upstream"))?.replace(&mut config);
        }
        config.oci = Registry::with_well_known(config.oci);
        if config.data.as_os_str().is_empty() {
            config.data = default_data(machine)?;
        }
        config.data = std::path::absolute(&config.data)
            .map_err(|source| ConfigError::Read { path: config.data.clone(), source })?;
        Ok(config)
    }

    /// The file that would be read: `--config`, `$DPM_CONFIG`, then the user's and the system's if they exist.
    pub fn find_file(flags: &Flags, machine: &Machine) -> Option<PathBuf> {
        if let Some(path) = flags.config.clone().or_else(|| machine.path("DPM_CONFIG")) {
            return Some(path);
        }
        let user = machine.config_home().map(|dir| dir.join("dpm/dpm.toml"));
        user.into_iter().chain([machine.at("etc/dpm/dpm.toml")]).find(|path| path.exists())
    }

    /// The text of a `dpm.toml` in which every key is explained and these indexes are filled in.
    ///
    /// Passwords are left out: the text says where to put them.
    pub fn default_toml(indexes: &[Index]) -> String {
        file::default_toml(indexes)
    }

    fn defaults() -> Self {
        Self {
            listen: SocketAddr::from((Ipv4Addr::LOCALHOST, DEFAULT_PORT)),
            names: Vec::new(),
            data: PathBuf::new(),
            offline: false,
            store: Store { budget: Budget::Share(20), free_margin_bytes: 1_000_000_000 },
            freshness: Freshness {
                ttl: Duration::from_secs(5 * 60),
                max_ttl: Duration::from_secs(10 * 60),
                stale_while_revalidate: Duration::from_secs(60),
                stale_if_error: Duration::from_secs(30 * 24 * 3600),
                negative: Duration::from_secs(60),
            },
            log: Log { requests: true },
            near: Near::default(),
            rooms: Rooms::default(),
            proxy: None,
            pypi: Vec::new(),
            oci: Vec::new(),
            apt: None,
            learned: Learned::default(),
        }
    }

    fn take_environment(&mut self, machine: &Machine) -> Result<(), ConfigError> {
        let wrong = |name, text: String| ConfigError::Environment { name, text };
        if let Some(data) = machine.path("DPM_DATA") {
            self.data = data;
        }
        if let Some(listen) = machine.var("DPM_LISTEN") {
            self.listen = listen.parse().map_err(|_| {
                wrong("DPM_LISTEN", format!("{listen:?} is no ADDRESS:PORT, as 127.0.0.1:3142 is"))
            })?;
        }
        for (name, place) in [("DPM_OFFLINE", &mut self.offline), ("DPM_SWARM", &mut self.near.swarm)] {
            let Some(text) = machine.var(name) else { continue };
            *place = match text.to_ascii_lowercase().as_str() {
                "1" | "true" | "yes" | "on" => true,
                "0" | "false" | "no" | "off" => false,
                _ => return Err(wrong(name, format!("{text:?} is neither true nor false"))),
            };
        }
        if let Some(proxy) = machine.var("DPM_PROXY") {
            self.proxy = Some(index::http_url(proxy).map_err(|e| wrong("DPM_PROXY", e.to_string()))?);
        }
        if let Some(all) = machine.var("DPM_UPSTREAM") {
            let stated = Upstreams::read(all.split_whitespace(), &Origin::Environment);
            stated.map_err(|text| wrong("DPM_UPSTREAM", text))?.replace(self);
        }
        Ok(())
    }
}

impl fmt::Debug for Config {
    /// Leaves out what a proxy's URL says of its user.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Config")
            .field("listen", &self.listen)
            .field("names", &self.names)
            .field("data", &self.data)
            .field("offline", &self.offline)
            .field("store", &self.store)
            .field("freshness", &self.freshness)
            .field("log", &self.log)
            .field("near", &self.near)
            .field("rooms", &self.rooms)
            .field("proxy", &self.proxy.as_ref().map(|proxy| without_userinfo(proxy).to_string()))
            .field("pypi", &self.pypi)
            .field("oci", &self.oci)
            .field("apt", &self.apt)
            .field("learned", &self.learned)
            .finish()
    }
}

/// What `pypi=URL`, `oci=URL` and `apt=URL` texts name, in order.
#[derive(Default)]
struct Upstreams {
    pypi: Vec<Index>,
    oci: Vec<Registry>,
    apt: Vec<AptSource>,
}

impl Upstreams {
    fn read<'a>(texts: impl Iterator<Item = &'a str>, origin: &Origin) -> Result<Self, String> {
        let mut all = Self::default();
        for text in texts {
            let (ecosystem, url) = text
                .split_once('=')
                .filter(|(name, _)| !name.contains([':', '/']))
                .ok_or("an upstream is written pypi=https://index.example.org/simple/ or oci=https://registry.example.org")?;
            match ecosystem {
                "pypi" => {
                    let name = index::default_name(all.pypi.len());
                    all.pypi.push(Index::from_url(name, url, origin.clone()).map_err(|e| e.to_string())?);
                }
                "oci" => {
                    let name = oci::default_name(all.oci.len());
                    let registry =
                        Registry::from_url(name, url, origin.clone()).map_err(|e| e.to_string())?;
                    all.oci.push(Registry { root: all.oci.is_empty(), ..registry });
                }
                "apt" => {
                    all.apt.push(AptSource::from_url(url, origin.clone()).map_err(|e| e.to_string())?);
                }
                other => {
                    return Err(format!(
                        "{other:?} is no ecosystem that dpm knows; there are pypi, oci and apt"
                    ));
                }
            }
        }
        Ok(all)
    }

    /// An ecosystem that is not named stays as it is.
    fn replace(self, config: &mut Config) {
        if !self.pypi.is_empty() {
            config.pypi = self.pypi;
        }
        if !self.oci.is_empty() {
            config.oci = self.oci;
        }
        if !self.apt.is_empty() {
            config.apt = Some(self.apt);
        }
    }
}

/// Where a service's and a user's data is expected to be.
fn default_data(machine: &Machine) -> Result<PathBuf, ConfigError> {
    if machine.superuser {
        return Ok(machine.at("var/lib/dpm"));
    }
    machine.data_home().map(|dir| dir.join("dpm")).ok_or(ConfigError::NoHome)
}

/// The port on which the best-known cache of this kind listens, so that probing clients find us.
const DEFAULT_PORT: u16 = 3142;

/// Why there is no configuration.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// A file that was named, or a directory, cannot be read.
    #[error("cannot read {}", path.display())]
    Read {
        /// What was to be read.
        path: PathBuf,
        /// What the system says.
        #[source]
        source: io::Error,
    },
    /// The file says something that has no meaning here.
    #[error("{}:{line}: {text}", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// Line, from 1.
        line: usize,
        /// What is wrong and what would be right.
        text: String,
    },
    /// A flag has no meaning.
    #[error("{flag}: {text}")]
    Flag {
        /// The flag.
        flag: &'static str,
        /// What is wrong and what would be right.
        text: String,
    },
    /// An environment variable has no meaning.
    #[error("${name}: {text}")]
    Environment {
        /// The variable.
        name: &'static str,
        /// What is wrong and what would be right.
        text: String,
    },
    /// The password of an index cannot be had.
    #[error("the password of index {index}: {text}")]
    Password {
        /// The index's name.
        index: String,
        /// What is missing.
        text: String,
    },
    /// No index is named, and none can be learned.
    #[error(transparent)]
    Learn(#[from] LearnError),
    /// No data directory is named, and there is no home to put one.
    #[error("no place for data: neither --data nor $DPM_DATA nor $XDG_DATA_HOME nor $HOME is set")]
    NoHome,
}

fn read_text(path: &Path) -> Result<String, ConfigError> {
    std::fs::read_to_string(path).map_err(|source| ConfigError::Read { path: path.into(), source })
}

#[cfg(test)]
mod tests;
