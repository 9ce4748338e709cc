//! `dpm.toml`: read with errors that name the line and the key that was meant, and written for `dpm init`.

use std::fmt::Write as _;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use serde::de::{Deserializer, Error as _};
use serde::{Deserialize, de::IgnoredAny};
use url::Url;

use crate::eco::pypi::NamePattern;

use super::index::{default_name, http_url};
use super::units::{Share, Size, Span};
use super::{AptSource, BadUrl, Clients, Config, ConfigError, Index, Machine, Origin, Registry};
use super::{near, oci, rooms};
use crate::base::{Multiaddr, PeerId, Secret};
use crate::members::Mode;
use crate::wire::room::Allow;

/// Reads a file over the defaults. Paths in it are relative to its own directory.
pub(super) fn read(path: &Path, machine: &Machine) -> Result<Config, ConfigError> {
    let text = super::read_text(path)?;
    let file: File = toml::from_str(&text).map_err(|e| explain(path, &text, &e))?;
    let dir = path.parent().unwrap_or(Path::new(""));
    let mut config = Config::defaults();
    let d = &mut config;
    set(&mut d.listen, file.listen);
    d.names = file.names.into_iter().map(|name| name.0).collect();
    set(&mut d.data, file.data.map(|data| dir.join(data)));
    set(&mut d.offline, file.offline);
    d.proxy = file.proxy.map(|proxy| proxy.0);
    set(&mut d.store.budget, file.store.budget.map(|share| share.0));
    set(&mut d.store.free_margin_bytes, file.store.free_margin.map(|size| size.0));
    let f = file.freshness;
    set(&mut d.freshness.ttl, f.ttl.map(|span| span.0));
    set(&mut d.freshness.max_ttl, f.max_ttl.map(|span| span.0));
    set(&mut d.freshness.stale_while_revalidate, f.stale_while_revalidate.map(|span| span.0));
    set(&mut d.freshness.stale_if_error, f.stale_if_error.map(|span| span.0));
    set(&mut d.freshness.negative, f.negative.map(|span| span.0));
    set(&mut d.log.requests, file.log.requests);
    let n = file.near;
    set(&mut d.near.swarm, n.swarm);
    set(&mut d.near.lan, n.lan);
    set(&mut d.near.share, n.share);
    set(&mut d.near.name, n.name.map(|name| name.0));
    d.near.listen = n.listen.into_iter().map(|address| address.0).collect();
    d.near.peers = n.peers.into_iter().map(|peer| peer.0).collect();
    d.near.allow = n.allow.into_iter().map(|peer| peer.0).collect();
    let r = file.rooms;
    set(&mut d.rooms.mirror, r.mirror.map(|mirror| mirror.0));
    set(&mut d.rooms.budget_bytes, r.budget.map(|size| size.0));
    set(&mut d.rooms.max_age, r.max_age.map(|span| span.0));
    set(&mut d.rooms.addresses, r.addresses.map(|addresses| addresses.0));
    d.rooms.advertise = r.advertise.0;
    d.rooms.name = r.name.map(|name| name.0);
    set(&mut d.rooms.pace, r.pace.map(|pace| pace.0));
    let private = file.apt.private;
    d.apt = file.apt.upstreams.map(|urls| {
        let source = |url: AptUrl| AptSource { private, origin: Origin::File(path.into()), ..url.0 };
        urls.into_iter().map(source).collect()
    });
    for (place, raw) in file.pypi.into_iter().enumerate() {
        let line = line_of(&text, raw.span().start);
        let wrong = |text| ConfigError::File { path: path.into(), line, text };
        let index = raw.into_inner().index(place, path, machine, wrong)?;
        if d.pypi.iter().any(|has| has.name == index.name) {
            return Err(wrong(format!("there are two [[pypi]] with the name {:?}", index.name)));
        }
        d.pypi.push(index);
    }
    for (place, raw) in file.oci.into_iter().enumerate() {
        let line = line_of(&text, raw.span().start);
        let wrong = |text| ConfigError::File { path: path.into(), line, text };
        let registry = raw.into_inner().registry(place, path, machine, wrong)?;
        let named = |has: &str| has == registry.name;
        if d.oci.iter().any(|has| named(&has.name)) || d.pypi.iter().any(|has| named(&has.name)) {
            return Err(wrong(format!("there are two upstreams with the name {:?}", registry.name)));
        }
        if let Some(host) = registry.hosts.iter().find(|host| d.oci.iter().any(|r| r.hosts.contains(host))) {
            return Err(wrong(format!("there are two [[oci]] for the host {host:?}")));
        }
        if registry.root && d.oci.iter().any(|has| has.root) {
            return Err(wrong("there are two [[oci]] with root = true".into()));
        }
        if d.oci.len() >= oci::MOST {
            return Err(wrong(format!("there are more than {} [[oci]]", oci::MOST)));
        }
        d.oci.push(registry);
    }
    Ok(config)
}

/// The text of a file with every key explained; see [`Config::default_toml`].
pub(super) fn default_toml(indexes: &[Index]) -> String {
    let mut text = HEAD.to_owned();
    if indexes.is_empty() {
        text.push_str(NO_INDEX);
    }
    for index in indexes {
        // Writing to a String cannot fail.
        let _ = write_index(&mut text, index);
    }
    text.push_str(REGISTRIES);
    text
}

fn write_index(text: &mut String, index: &Index) -> std::fmt::Result {
    let quoted = |text: &str| toml::Value::from(text).to_string();
    let list = |texts: Vec<String>| toml::Value::from(texts).to_string();
    let one_line = index.origin.to_string().replace(|c: char| c.is_control(), " ");
    writeln!(text, "\n# from {one_line}")?;
    writeln!(text, "[[pypi]]\nname = {}\nurl = {}", quoted(&index.name), quoted(index.url.as_str()))?;
    writeln!(text, "files = {}", list(index.files.iter().map(Url::to_string).collect()))?;
    writeln!(text, "owns = {}", list(index.owns.clone()))?;
    writeln!(text, "private = {}", index.private)?;
    if index.peers {
        writeln!(text, "peers = true")?;
    }
    if let Some(username) = &index.username {
        writeln!(text, "username = {}", quoted(username))?;
    }
    if index.password.is_some() {
        text.push_str(
            "# It has a password: put that into a file that only dpm can read, and name the file.\n",
        );
        text.push_str("# password_file = \"pypi.password\"\n");
    }
    Ok(())
}

fn set<T>(place: &mut T, stated: Option<T>) {
    if let Some(stated) = stated {
        *place = stated;
    }
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct File {
    listen: Option<SocketAddr>,
    names: Vec<DomainName>,
    data: Option<PathBuf>,
    offline: Option<bool>,
    proxy: Option<HttpUrl>,
    store: StoreTable,
    freshness: FreshnessTable,
    log: LogTable,
    near: NearTable,
    rooms: RoomsTable,
    apt: AptTable,
    pypi: Vec<toml::Spanned<IndexTable>>,
    oci: Vec<toml::Spanned<RegistryTable>>,
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct StoreTable {
    budget: Option<Share>,
    free_margin: Option<Size>,
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct FreshnessTable {
    ttl: Option<Span>,
    max_ttl: Option<Span>,
    stale_while_revalidate: Option<Span>,
    stale_if_error: Option<Span>,
    negative: Option<Span>,
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct LogTable {
    requests: Option<bool>,
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct NearTable {
    swarm: Option<bool>,
    lan: Option<bool>,
    share: Option<near::Share>,
    name: Option<HostName>,
    listen: Vec<ListenAddress>,
    peers: Vec<PeerAddress>,
    allow: Vec<PeerName>,
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct RoomsTable {
    mirror: Option<MirrorWord>,
    budget: Option<Size>,
    max_age: Option<Span>,
    addresses: Option<AddressesWord>,
    advertise: Advertised,
    name: Option<DisplayName>,
    pace: Option<PaceTable>,
}

#[derive(Default, Deserialize)]
#[serde(try_from = "Vec<AdvertisedAddress>")]
struct Advertised(Vec<Multiaddr>);

#[derive(Deserialize)]
#[serde(try_from = "StatedPace")]
struct PaceTable(rooms::Pace);

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct StatedPace {
    per_second: f64,
    burst: u32,
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct AptTable {
    upstreams: Option<Vec<AptUrl>>,
    private: bool,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct IndexTable {
    name: Option<String>,
    url: String,
    #[serde(default)]
    files: Vec<HttpUrl>,
    #[serde(default)]
    owns: Vec<Glob>,
    private: Option<bool>,
    peers: Option<bool>,
    username: Option<String>,
    password_file: Option<PathBuf>,
    password_env: Option<String>,
    /// Read only to be refused.
    #[serde(rename = "password")]
    _password: Option<ClearPassword>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RegistryTable {
    name: Option<String>,
    url: String,
    hosts: Option<Vec<RegistryHost>>,
    #[serde(default)]
    files: Vec<HttpUrl>,
    root: Option<bool>,
    library: Option<bool>,
    private: Option<bool>,
    peers: Option<bool>,
    clients: Option<ClientsWord>,
    username: Option<String>,
    password_file: Option<PathBuf>,
    password_env: Option<String>,
    client_username: Option<String>,
    client_password_file: Option<PathBuf>,
    client_password_env: Option<String>,
    /// Read only to be refused.
    #[serde(rename = "password")]
    _password: Option<ClearPassword>,
}

#[derive(Clone, Copy, Deserialize)]
#[serde(rename_all = "lowercase")]
enum ClientsWord {
    Anyone,
    Loopback,
    Password,
}

#[derive(Deserialize)]
#[serde(try_from = "String")]
struct HttpUrl(Url);

#[derive(Deserialize)]
#[serde(try_from = "String")]
struct Glob(String);

struct ClearPassword;

/// Texts that mean something, read by the function that also reads the flag.
macro_rules! read_by {
    ($($name:ident($type:ty) = $read:path;)*) => {$(
        #[derive(Deserialize)]
        #[serde(try_from = "String")]
        struct $name($type);

        impl TryFrom<String> for $name {
            type Error = String;
            fn try_from(text: String) -> Result<Self, String> {
                $read(&text).map(Self)
            }
        }
    )*};
}

read_by! {
    AddressesWord(Allow) = rooms::addresses;
    AdvertisedAddress(Multiaddr) = rooms::advertised;
    AptUrl(AptSource) = apt_source;
    DisplayName(String) = rooms::display_name;
    DomainName(String) = domain_name;
    HostName(String) = near::host_name;
    ListenAddress(Multiaddr) = near::listen_address;
    MirrorWord(Mode) = rooms::mirror;
    PeerAddress((PeerId, Multiaddr)) = near::peer_address;
    PeerName(PeerId) = near::peer_id;
    RegistryHost(String) = oci::host;
}

impl TryFrom<Vec<AdvertisedAddress>> for Advertised {
    type Error = String;
    fn try_from(all: Vec<AdvertisedAddress>) -> Result<Self, String> {
        match all.len() <= rooms::MOST_ADVERTISED {
            true => Ok(Self(all.into_iter().map(|address| address.0).collect())),
            false => {
                Err(format!("{} addresses, {} are the most that are told", all.len(), rooms::MOST_ADVERTISED))
            }
        }
    }
}

impl TryFrom<StatedPace> for PaceTable {
    type Error = String;
    fn try_from(stated: StatedPace) -> Result<Self, String> {
        rooms::pace(stated.per_second, stated.burst).map(Self)
    }
}

fn domain_name(text: &str) -> Result<String, String> {
    match !text.is_empty() && text.split('.').all(|label| near::host_name(label).is_ok()) {
        true => Ok(text.to_owned()),
        false => Err(format!("{text:?} is no name without a port, as \"packages.example.org\" is")),
    }
}

fn apt_source(text: &str) -> Result<AptSource, String> {
    AptSource::from_url(text, Origin::Flag).map_err(|e| e.to_string())
}

impl TryFrom<String> for HttpUrl {
    type Error = BadUrl;
    fn try_from(text: String) -> Result<Self, BadUrl> {
        http_url(&text).map(Self)
    }
}

impl TryFrom<String> for Glob {
    type Error = String;
    fn try_from(text: String) -> Result<Self, String> {
        let pattern =
            NamePattern::parse(&text).map_err(|e| format!("{text:?} is no pattern of names: {e}"))?;
        Ok(Self(pattern.to_string()))
    }
}

impl<'de> Deserialize<'de> for ClearPassword {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        IgnoredAny::deserialize(deserializer)?;
        Err(D::Error::custom(
            "a password does not belong in this file: write password_file = \"PATH\" or password_env = \"NAME\"",
        ))
    }
}

impl IndexTable {
    fn index(
        self,
        place: usize,
        path: &Path,
        machine: &Machine,
        wrong: impl Fn(String) -> ConfigError,
    ) -> Result<Index, ConfigError> {
        let name = plain_name(self.name.unwrap_or_else(|| default_name(place))).map_err(&wrong)?;
        let stated = Index::from_url(name, &self.url, Origin::File(path.into()))
            .map_err(|e| wrong(format!("url: {e}")))?;
        let secret = read_password(&stated.name, path, self.password_file, self.password_env, machine)?;
        if stated.password.is_some() && secret.is_some() {
            return Err(wrong(format!(
                "index {} has a password in its url and another beside it",
                stated.name
            )));
        }
        let username = self.username.or(stated.username);
        let password = secret.or(stated.password);
        Ok(Index {
            files: self.files.into_iter().map(|url| super::without_userinfo(&url.0)).collect(),
            owns: self.owns.into_iter().map(|glob| glob.0).collect(),
            private: self.private.unwrap_or(username.is_some() || password.is_some()),
            peers: self.peers.unwrap_or(false),
            username,
            password,
            ..stated
        })
    }
}

impl RegistryTable {
    fn registry(
        self,
        place: usize,
        path: &Path,
        machine: &Machine,
        wrong: impl Fn(String) -> ConfigError,
    ) -> Result<Registry, ConfigError> {
        let name = plain_name(self.name.unwrap_or_else(|| oci::default_name(place))).map_err(&wrong)?;
        let stated = Registry::from_url(name, &self.url, Origin::File(path.into()))
            .map_err(|e| wrong(format!("url: {e}")))?;
        let secret = read_password(&stated.name, path, self.password_file, self.password_env, machine)?;
        if stated.password.is_some() && secret.is_some() {
            let name = stated.name;
            return Err(wrong(format!("registry {name} has a password in its url and another beside it")));
        }
        let username = self.username.or(stated.username);
        let password = secret.or(stated.password);
        let private = self.private.unwrap_or(username.is_some() || password.is_some());
        let theirs =
            read_password(&stated.name, path, self.client_password_file, self.client_password_env, machine)?;
        let clients = match (self.clients, self.client_username, theirs) {
            (None | Some(ClientsWord::Password), Some(name), Some(password)) => {
                Clients::Password(name, password)
            }
            (Some(ClientsWord::Password), ..) | (_, Some(_), None) | (_, None, Some(_)) => {
                return Err(wrong(
                    "clients that show a password need client_username and client_password_file (or _env)"
                        .into(),
                ));
            }
            (Some(_), Some(_), Some(_)) => {
                return Err(wrong("client_username goes with clients = \"password\" only".into()));
            }
            (Some(ClientsWord::Anyone), None, None) => Clients::Anyone,
            (Some(ClientsWord::Loopback), None, None) => Clients::Loopback,
            (None, None, None) => {
                if private {
                    Clients::Loopback
                } else {
                    Clients::Anyone
                }
            }
        };
        let hosts = match self.hosts {
            Some(hosts) if hosts.is_empty() => return Err(wrong("hosts: at least one".into())),
            Some(hosts) => hosts.into_iter().map(|host| host.0).collect(),
            None => stated.hosts,
        };
        let library = self.library.unwrap_or_else(|| hosts.iter().any(|host| host == "docker.io"));
        Ok(Registry {
            files: self.files.into_iter().map(|url| super::without_userinfo(&url.0)).collect(),
            root: self.root.unwrap_or(false),
            peers: self.peers.unwrap_or(false),
            hosts,
            library,
            private,
            clients,
            username,
            password,
            ..stated
        })
    }
}

fn plain_name(name: String) -> Result<String, String> {
    let is_plain = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || matches!(c, '-' | '_' | '.');
    match !name.is_empty() && name.chars().all(is_plain) {
        true => Ok(name),
        false => Err(format!("name {name:?} is not made of a-z, 0-9, '-', '_' and '.'")),
    }
}

fn read_password(
    index: &str,
    config: &Path,
    file: Option<PathBuf>,
    env: Option<String>,
    machine: &Machine,
) -> Result<Option<Secret>, ConfigError> {
    let wrong = |text| ConfigError::Password { index: index.into(), text };
    let secret = match (file, env) {
        (None, None) => return Ok(None),
        (Some(_), Some(_)) => return Err(wrong("password_file and password_env exclude each other".into())),
        (Some(file), None) => {
            let file = config.parent().unwrap_or(Path::new("")).join(file);
            let text = std::fs::read_to_string(&file)
                .map_err(|e| wrong(format!("cannot read {}: {e}", file.display())))?;
            text.trim_end_matches(['\r', '\n']).to_owned()
        }
        (None, Some(name)) => {
            machine.var(&name).ok_or_else(|| wrong(format!("${name} is not set")))?.to_owned()
        }
    };
    if secret.is_empty() { Err(wrong("it is empty".into())) } else { Ok(Some(Secret::new(secret))) }
}

/// What the parser says, without the excerpt that it shows (which may hold a secret), with the key that was meant.
fn explain(path: &Path, text: &str, error: &toml::de::Error) -> ConfigError {
    let start = error.span().map_or(0, |span| span.start);
    let mut message = error.message().lines().collect::<Vec<_>>().join(", ");
    if message.starts_with("unknown field") {
        let mut quoted = message.split('`').skip(1).step_by(2);
        let unknown = quoted.next().unwrap_or_default();
        let valid: Vec<&str> = quoted.filter(|key| *key != "password").collect();
        let nearest = valid.iter().min_by_key(|key| distance(unknown, key));
        let meant = match nearest {
            Some(key) if distance(unknown, key) <= 1 + unknown.len() / 3 => {
                format!("; did you mean {key:?}?")
            }
            _ => format!("; there are {}", valid.join(", ")),
        };
        message = format!("unknown key {unknown:?}{meant}");
    } else if let Some((key, _)) = line_text(text, start).split_once('=')
        && !key.trim().is_empty()
        && !message.starts_with("missing field")
    {
        message = format!("{}: {message}", key.trim());
    }
    ConfigError::File { path: path.into(), line: line_of(text, start), text: message }
}

fn line_of(text: &str, at: usize) -> usize {
    1 + text.bytes().take(at).filter(|&byte| byte == b'\n').count()
}

fn line_text(text: &str, at: usize) -> &str {
    text.lines().nth(line_of(text, at) - 1).unwrap_or_default()
}

/// Levenshtein's.
fn distance(a: &str, b: &str) -> usize {
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.bytes().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, y) in b.bytes().enumerate() {
            let next = (diagonal + usize::from(x != y)).min(row[j] + 1).min(row[j + 1] + 1);
            diagonal = row[j + 1];
            row[j + 1] = next;
        }
    }
    row[b.len()]
}

const HEAD: &str = r##"# dpm's configuration. What is commented out shows the default.
# Flags outweigh the environment, that outweighs this file, this outweighs what is learned from pip, uv and apt.
# Sizes: "50GB", "500MiB". Times: "30s", "5m", "12h", "7d". Paths are relative to this file.

# Where clients connect. Anything but a loopback address lets the network in. ($DPM_LISTEN, --listen)
# listen = "127.0.0.1:3142"

# Further names of this box, as a reverse proxy's: /ipfs, /api and /metrics are answered under these, its host name,
# NAME.local and addresses only, so that no web page elsewhere can read them through a visitor's browser.
# names = ["packages.example.org"]

# Where packages are kept; the default is /var/lib/dpm for root, else ~/.local/share/dpm. ($DPM_DATA, --data)
# data = "/var/lib/dpm"

# Never ask an upstream: serve what is here. ($DPM_OFFLINE, --offline)
# offline = false

# The proxy on the way to upstreams. The usual proxy variables are not used, as they may lead here. ($DPM_PROXY)
# proxy = "http://proxy.example.org:8080/"

[store]
# The most that packages may take: a share of the disk, or a size.
# budget = "20%"
# What stays free on the disk whatever the budget says; never less than 64 MiB, which the index needs.
# free_margin = "1GB"

[freshness]
# How long an index page is believed when its upstream does not say.
# ttl = "5m"
# The most that is believed when its upstream does say.
# max_ttl = "10m"
# After that: how long the old page is served while a new one is fetched behind it.
# stale_while_revalidate = "1m"
# After that: how long the old page is served while the upstream fails.
# stale_if_error = "30d"
# How long "there is no such project" is believed.
# negative = "60s"

[log]
# One line a request.
# requests = true

[near]
# Find other dpm nodes and IPFS peers on the LAN, and share with them. ($DPM_SWARM, --no-swarm)
# swarm = true
# Open HTTP to the LAN too, and publish it there (_http._tcp, NAME.local). (--lan)
# lan = false
# name = "dpm"
# Who may have what is stored here: "off", "lan" (private addresses and this box's own networks), "anyone". What came
# from a private index or registry is given to nobody, unless that one says peers = true.
# share = "lan"
# Only these peers, by their ids; empty for everybody whom `share` lets in.
# allow = []
# Where the swarm listens; the default is UDP 4001, or another port when that is taken. (--swarm-listen)
# listen = ["/ip4/0.0.0.0/udp/4001/quic-v1", "/ip6/::/udp/4001/quic-v1"]
# Peers that mDNS cannot find, as "/ip4/192.0.2.7/udp/4001/quic-v1/p2p/ID". (--peer)
# peers = []

[rooms]
# How a Matrix room is used that `dpm room join` joins without --mirror: "lazy" takes from its members what a client
# wants, "follow" fetches what they have beforehand, too, "off" takes nothing and only gives.
# mirror = "lazy"
# The most that is fetched beforehand because members have it, of all rooms that are followed.
# budget = "10GB"
# How old the word of a member may be. Nodes renew theirs twice a day.
# max_age = "30d"
# Which addresses of members are dialled, and which of its own this node tells: "global", or "all" with those of private
# networks, where the members are in one.
# addresses = "global"
# Where this node is reached from outside when it cannot know that: a port that the router forwards.
# advertise = []
# What members read of this node; the default is the host's name.
# name = "ada's laptop"
# Events that the homeserver takes a second, and at once. The default is Synapse's; more only where yours allows it.
# pace = { per_second = 0.2, burst = 10 }

[apt]
# What apt may ask dpm for as its proxy: http sources, as in apt's own list. Without it, those of this machine's apt.
# upstreams = ["http://deb.example.org/debian/"]
# true: never shown to peers.
# private = false

# Python indexes, in the order in which they are asked. Without any, dpm asks pip and uv which they use.
#   name           in logs and metrics: a-z, 0-9, '-', '_', '.'
#   url            of the simple API
#   files          further places that its files may be fetched from
#   owns           names that belong to this index and are never asked of another: "corp-*"
#   private        true: never shown to peers; the default is true where there are credentials
#   peers          true: its files are given to peers although it is private
#   username       for Basic authentication
#   password_file  the file that holds the password or token; or
#   password_env   the environment variable that holds it
"##;

const NO_INDEX: &str = r#"# [[pypi]]
# name = "pypi"
# url = "https://index.example.org/simple/"
# files = []
# owns = []
# private = false
# peers = false
# username = "reader"
# password_file = "pypi.password"
"#;

const REGISTRIES: &str = r#"
# Registries of container images, by the hosts that clients name. Those that everybody knows are known without being
# named here (docker.io, ghcr.io, quay.io, registry.k8s.io, mcr.microsoft.com, public.ecr.aws, gcr.io); one named here
# takes the place of the one with its host.
#   name           in logs, metrics and the store: a-z, 0-9, '-', '_', '.'
#   url            of the registry; behind another cache with the prefix: "https://cache.example.org/v2/hub/"
#   hosts          as clients name it; the default is the url's
#   files          its token server and its file host, if they are on a private network too
#   root           true: what clients get who name no registry, as docker's mirrors do; the default is docker.io
#   library        true: "alpine" means "library/alpine"; the default is true for docker.io
#   username       for its token server or Basic authentication
#   password_file  the file that holds the password or token; or
#   password_env   the environment variable that holds it
#   private        true: kept apart; the default is true where there are credentials
#   peers          true: given to peers although it is private
#   clients        who gets what is kept apart: "loopback" (programs of this machine, the default), "password", "anyone"
#   client_username, client_password_file or client_password_env: what clients = "password" have to show
#   [[oci]]
#   name = "corp"
#   url = "https://registry.example.org"
#   username = "reader"
#   password_file = "registry.password"
#   clients = "password"
#   client_username = "office"
#   client_password_file = "office.password"
"#;
