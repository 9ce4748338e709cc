//! The command line: flags in, text or JSON out. argh stays here.

mod carry;
mod orders;
mod prefetch;
mod rooms;
pub mod setup;
mod show;
mod sink;

use std::net::SocketAddr;
use std::path::PathBuf;

use anyhow::{Context as _, Result, bail};
use argh::FromArgs;
use serde_json::json;

use crate::config::{self, Config, Flags, Machine, Origin, Severity};
use crate::daemon::{Daemon, Order, Tuning};
use crate::rt::Lines;

use show::Done;

/// The distributed package manager: a cache in front of package indexes and registries of containers. Without a command it says what it can do;
/// `dpm serve` is where to start.
#[derive(FromArgs)]
struct Dpm {
    /// print the version
    #[argh(switch)]
    version: bool,
    #[argh(subcommand)]
    command: Option<Command>,
}

#[derive(FromArgs)]
#[argh(subcommand)]
enum Command {
    Serve(Serve),
    Init(Init),
    Config(ConfigCommand),
    Setup(Setup),
    Status(Status),
    Why(Why),
    Verify(Verify),
    Purge(Purge),
    Pin(Pin),
    Gc(Gc),
    Peers(PeersCommand),
    Cid(carry::CidCommand),
    Get(carry::Get),
    Prefetch(prefetch::PrefetchCommand),
    Export(carry::Export),
    Import(carry::Import),
    Room(rooms::RoomCommand),
}

/// Run the cache. With no configuration it learns its upstream from this machine's pip or uv, and clients are
/// answered under http://127.0.0.1:3142/pypi/simple/ and, for containers, 127.0.0.1:3142/REGISTRY/IMAGE
#[derive(FromArgs)]
#[argh(subcommand, name = "serve")]
struct Serve {
    /// the configuration file (default: dpm.toml in the user's or the system's configuration folder)
    #[argh(option, arg_name = "file")]
    config: Option<PathBuf>,
    /// the data folder
    #[argh(option, arg_name = "dir")]
    data: Option<PathBuf>,
    /// where clients connect (default: 127.0.0.1:3142)
    #[argh(option, arg_name = "addr")]
    listen: Option<SocketAddr>,
    /// an upstream, as pypi=URL, oci=URL or apt=URL; repeat it for several: the first index is asked first, the first
    /// registry is what clients get who name none
    #[argh(option, arg_name = "name=url")]
    upstream: Vec<String>,
    /// never ask an upstream: serve what is stored
    #[argh(switch)]
    offline: bool,
    /// ask pip or uv again for the upstream instead of using what they said last
    #[argh(switch)]
    relearn: bool,
    /// open HTTP to the LAN too and publish it there (default: this machine only)
    #[argh(switch)]
    lan: bool,
    /// no peers: neither find nor be found, neither give nor take
    #[argh(switch)]
    no_swarm: bool,
    /// where peers connect, as /ip4/0.0.0.0/udp/4001/quic-v1; repeatable (default: UDP 4001, else a free port)
    #[argh(option, arg_name = "multiaddr")]
    swarm_listen: Vec<String>,
    /// a peer that is not found by itself, as /ip4/192.0.2.7/udp/4001/quic-v1/p2p/ID; repeatable
    #[argh(option, arg_name = "multiaddr")]
    peer: Vec<String>,
}

/// Write a commented dpm.toml with what was learned from this machine.
#[derive(FromArgs)]
#[argh(subcommand, name = "init")]
struct Init {
    /// where to write it, `-` for the terminal (default: ./dpm.toml)
    #[argh(positional, default = "PathBuf::from(\"dpm.toml\")")]
    file: PathBuf,
    /// replace a file that is there
    #[argh(switch)]
    force: bool,
}

/// Look at the configuration: `dpm config check`.
#[derive(FromArgs)]
#[argh(subcommand, name = "config")]
struct ConfigCommand {
    #[argh(subcommand)]
    command: ConfigSub,
}

#[derive(FromArgs)]
#[argh(subcommand)]
enum ConfigSub {
    Check(ConfigCheck),
}

/// Say what the configuration comes to and what is doubtful in it. Exits with 1 when something is wrong.
#[derive(FromArgs)]
#[argh(subcommand, name = "check")]
struct ConfigCheck {
    /// the configuration file
    #[argh(option, arg_name = "file")]
    config: Option<PathBuf>,
    /// print JSON
    #[argh(switch)]
    json: bool,
}

/// Point a package client at dpm, or take that back exactly. Of containers' clients the system's configuration is
/// written by root, the user's own by others; podman stands for skopeo, buildah and cri-o, too, and is told of the
/// registries that dpm's configuration knows.
#[derive(FromArgs)]
#[argh(subcommand, name = "setup")]
struct Setup {
    /// pip, uv, docker, podman or containerd
    #[argh(positional)]
    client: config::Client,
    /// take back what an earlier setup wrote
    #[argh(switch)]
    undo: bool,
    /// where dpm is (default: http://127.0.0.1:3142)
    #[argh(option, default = "String::from(\"http://127.0.0.1:3142\")")]
    url: String,
    /// the client's file to write, where it is not the usual one
    #[argh(option, arg_name = "file")]
    file: Option<PathBuf>,
    /// dpm's own configuration file, for the registries that podman is told of
    #[argh(option, arg_name = "file")]
    config: Option<PathBuf>,
    /// say what would be done and do nothing
    #[argh(switch)]
    dry_run: bool,
    /// print JSON
    #[argh(switch)]
    json: bool,
}

/// Show what is stored, asked and served.
#[derive(FromArgs)]
#[argh(subcommand, name = "status")]
struct Status {
    /// the configuration file of the node
    #[argh(option, arg_name = "file")]
    config: Option<PathBuf>,
    /// the data folder of the node
    #[argh(option, arg_name = "dir")]
    data: Option<PathBuf>,
    /// print JSON
    #[argh(switch)]
    json: bool,
}

/// Say where an answer comes from: its upstream, age, digest and CID.
#[derive(FromArgs)]
#[argh(subcommand, name = "why")]
struct Why {
    /// a URL of dpm, a digest (sha256:…), a CID, an image (docker.io/library/alpine:3.20), or the name of a project
    #[argh(positional)]
    what: String,
    /// the configuration file of the node
    #[argh(option, arg_name = "file")]
    config: Option<PathBuf>,
    /// the data folder of the node
    #[argh(option, arg_name = "dir")]
    data: Option<PathBuf>,
    /// print JSON
    #[argh(switch)]
    json: bool,
}

/// Read and hash everything that is stored; name and take out what is damaged, mend the index. Exits with 1 when
/// something was damaged.
#[derive(FromArgs)]
#[argh(subcommand, name = "verify")]
struct Verify {
    /// the configuration file of the node
    #[argh(option, arg_name = "file")]
    config: Option<PathBuf>,
    /// the data folder of the node
    #[argh(option, arg_name = "dir")]
    data: Option<PathBuf>,
    /// print JSON
    #[argh(switch)]
    json: bool,
}

/// Forget a project with its files, an image with its layers and its repository's tags, or one artifact: the next
/// request asks the upstream.
#[derive(FromArgs)]
#[argh(subcommand, name = "purge")]
struct Purge {
    /// a URL of dpm, a digest (sha256:…), a CID, an image (docker.io/library/alpine:3.20), or the name of a project
    #[argh(positional)]
    what: String,
    /// the configuration file of the node
    #[argh(option, arg_name = "file")]
    config: Option<PathBuf>,
    /// the data folder of the node
    #[argh(option, arg_name = "dir")]
    data: Option<PathBuf>,
    /// print JSON
    #[argh(switch)]
    json: bool,
}

/// Keep an artifact, or what is stored of a project or an image, whatever else has to go; or let them go again.
#[derive(FromArgs)]
#[argh(subcommand, name = "pin")]
struct Pin {
    /// a URL of dpm, a digest (sha256:…), a CID, an image (docker.io/library/alpine:3.20), or the name of a project
    #[argh(positional)]
    what: String,
    /// let it go again
    #[argh(switch)]
    undo: bool,
    /// the configuration file of the node
    #[argh(option, arg_name = "file")]
    config: Option<PathBuf>,
    /// the data folder of the node
    #[argh(option, arg_name = "dir")]
    data: Option<PathBuf>,
    /// print JSON
    #[argh(switch)]
    json: bool,
}

/// Show who is near: what they gave and took, how far they are, and who was caught lying.
#[derive(FromArgs)]
#[argh(subcommand, name = "peers")]
struct PeersCommand {
    /// the configuration file
    #[argh(option, arg_name = "file")]
    config: Option<PathBuf>,
    /// the data folder
    #[argh(option, arg_name = "dir")]
    data: Option<PathBuf>,
    /// print JSON
    #[argh(switch)]
    json: bool,
}

/// Evict what is over the budget and clean up now.
#[derive(FromArgs)]
#[argh(subcommand, name = "gc")]
struct Gc {
    /// the configuration file of the node
    #[argh(option, arg_name = "file")]
    config: Option<PathBuf>,
    /// the data folder of the node
    #[argh(option, arg_name = "dir")]
    data: Option<PathBuf>,
    /// print JSON
    #[argh(switch)]
    json: bool,
}

/// Runs the program with this process's arguments; gives its exit code.
pub fn run() -> Result<u8> {
    let dpm: Dpm = argh::from_env();
    if dpm.version {
        println!("dpm {}", env!("CARGO_PKG_VERSION"));
        return Ok(0);
    }
    let Some(command) = dpm.command else {
        println!("dpm {}: try `dpm serve`, or `dpm --help`", env!("CARGO_PKG_VERSION"));
        return Ok(0);
    };
    match command {
        Command::Serve(args) => serve(args),
        Command::Init(args) => init(&args),
        Command::Config(ConfigCommand { command: ConfigSub::Check(args) }) => check(args),
        Command::Setup(args) => set_up(&args),
        Command::Status(a) => orders::give(&Order::Status, a.config, a.data, a.json),
        Command::Why(a) => orders::give(&Order::Why(a.what), a.config, a.data, a.json),
        Command::Verify(a) => orders::give(&Order::Verify, a.config, a.data, a.json),
        Command::Purge(a) => orders::give(&Order::Purge(a.what), a.config, a.data, a.json),
        Command::Pin(a) => {
            let order = if a.undo { Order::Unpin(a.what) } else { Order::Pin(a.what) };
            orders::give(&order, a.config, a.data, a.json)
        }
        Command::Peers(a) => orders::give(&Order::Peers, a.config, a.data, a.json),
        Command::Gc(a) => orders::give(&Order::Gc, a.config, a.data, a.json),
        Command::Cid(a) => carry::cid(a),
        Command::Get(a) => carry::get(a),
        Command::Prefetch(a) => prefetch::prefetch(a),
        Command::Export(a) => carry::export(a),
        Command::Import(a) => carry::import(a),
        Command::Room(a) => rooms::room(a),
    }
}

fn serve(args: Serve) -> Result<u8> {
    let lines = Lines::start(std::io::stderr()).context("start the log")?;
    show::log_to(lines.clone());
    let flags = Flags {
        config: args.config,
        data: args.data,
        listen: args.listen,
        upstreams: args.upstream,
        offline: args.offline,
        relearn: args.relearn,
        no_swarm: args.no_swarm,
        lan: args.lan,
        swarm_listen: args.swarm_listen,
        peers: args.peer,
    };
    show::raise_open_files();
    let (sender, receiver) = std::sync::mpsc::sync_channel(1);
    // A second signal finds the channel full and is dropped: stopping is under way.
    ctrlc::set_handler(move || {
        let _ = sender.try_send(());
    })
    .context("watch for signals")?;
    let config = Config::load(&flags)?;
    let daemon = Daemon::start(&config, Tuning { lines: Some(lines.clone()), ..Tuning::default() })?;
    for index in &config.pypi {
        log::info!("upstream {}: {} ({})", index.name, index.url, index.origin);
    }
    let stated = || config.oci.iter().filter(|r| r.origin != Origin::WellKnown);
    for registry in stated() {
        let (name, hosts) = (&registry.name, registry.hosts.join(", "));
        log::info!("registry {name}: {} for {hosts} ({})", registry.url, registry.origin);
    }
    for source in config.apt.iter().flatten() {
        log::info!("apt source: {} ({})", source.url, source.origin);
    }
    log::info!("clients: http://{}/pypi/simple/  data: {}", daemon.address(), config.data.display());
    let host = config.oci.iter().find(|r| r.root).or(config.oci.first()).and_then(|r| r.hosts.first());
    if let Some(host) = host {
        log::info!("containers: {}/{host}/IMAGE, and so for other registries", daemon.address());
    }
    match daemon.peer_id() {
        Some(peer) => log::info!("swarm: {peer}, shares with {}", show::share(config.near.share)),
        None => log::info!("swarm: off"),
    }
    if let Some(name) = daemon.local_name() {
        let port = daemon.address().port();
        log::info!("on the LAN: http://{name}:{port}/pypi/simple/ (unless another machine has that name)");
        if config.apt.iter().flatten().next().is_some() {
            log::info!("on the LAN: an apt proxy (_apt_proxy._tcp) for these sources, at port {port}");
        }
    }
    // Stops on a signal; a handler that is gone is as good as one.
    let _ = receiver.recv();
    log::info!("stopping");
    let stopped = daemon.stop();
    lines.close();
    stopped.map(|()| 0)
}

fn init(args: &Init) -> Result<u8> {
    let config = Config::load(&Flags { relearn: true, ..Flags::default() })?;
    let text = Config::default_toml(&config.pypi);
    if args.file.as_os_str() == "-" {
        print!("{text}");
        return Ok(0);
    }
    if args.file.exists() && !args.force {
        bail!("{} is there already; --force replaces it", args.file.display());
    }
    std::fs::write(&args.file, text).with_context(|| format!("write {}", args.file.display()))?;
    println!("wrote {}; `dpm serve --config {}` uses it", args.file.display(), args.file.display());
    Ok(0)
}

fn check(args: ConfigCheck) -> Result<u8> {
    let flags = Flags { config: args.config, ..Flags::default() };
    let file = Config::find_file(&flags, &Machine::here());
    let config = Config::load(&flags)?;
    let findings = config.check();
    let wrong = findings.iter().any(|f| f.severity == Severity::Error);
    if args.json {
        let indexes: Vec<_> = config
            .pypi
            .iter()
            .map(|i| json!({"name": i.name, "url": i.url.as_str(), "private": i.private, "from": i.origin.to_string()}))
            .collect();
        let registries: Vec<_> = config
            .oci
            .iter()
            .map(|r| {
                json!({
                    "name": r.name, "url": r.url.as_str(), "hosts": r.hosts, "root": r.root,
                    "private": r.private, "from": r.origin.to_string(),
                })
            })
            .collect();
        let apt = config.apt.iter().flatten();
        let apt: Vec<_> = apt
            .map(|s| json!({"url": s.url.as_str(), "private": s.private, "from": s.origin.to_string()}))
            .collect();
        let findings: Vec<_> =
            findings.iter().map(|f| json!({"severity": f.severity.to_string(), "text": f.text})).collect();
        let listen = config.listen.to_string();
        show::json(&json!({
            "file": file, "listen": listen, "data": config.data, "offline": config.offline,
            "pypi": indexes, "oci": registries, "apt": apt, "findings": findings,
        }));
    } else {
        match file {
            Some(file) => println!("file     {}", file.display()),
            None => println!("file     none: defaults, and what was learned"),
        }
        println!("listen   {}\ndata     {}", config.listen, config.data.display());
        for index in &config.pypi {
            println!("pypi     {}  {}  ({})", index.name, index.url, index.origin);
        }
        for registry in config.oci.iter().filter(|r| r.origin != Origin::WellKnown) {
            let hosts = registry.hosts.join(", ");
            println!("oci      {}  {}  for {hosts}  ({})", registry.name, registry.url, registry.origin);
        }
        let known = config.oci.iter().filter(|r| r.origin == Origin::WellKnown);
        let known: Vec<_> = known.map(|r| r.name.as_str()).collect();
        if !known.is_empty() {
            println!("oci      {}", known.join(", "));
        }
        for source in config.apt.iter().flatten() {
            println!("apt      {}  ({})", source.url, source.origin);
        }
        for finding in &findings {
            println!("{}: {}", finding.severity, finding.text);
        }
        if findings.is_empty() {
            println!("nothing to say against it");
        }
    }
    Ok(u8::from(wrong))
}

fn set_up(args: &Setup) -> Result<u8> {
    let machine = Machine::here();
    let report = match (args.undo, args.dry_run) {
        (true, true) => bail!("--dry-run and --undo do not go together"),
        (true, false) => setup::undo(args.client, &machine)?,
        (false, dry_run) => {
            let url = args.url.parse().with_context(|| format!("--url {}", args.url))?;
            let hosts = match args.client {
                config::Client::Podman => {
                    let flags = Flags { config: args.config.clone(), ..Flags::default() };
                    Config::stated(&flags, &machine)?.oci.into_iter().flat_map(|r| r.hosts).collect()
                }
                _ => Vec::new(),
            };
            let target = setup::Target { url, hosts, file: args.file.clone() };
            let plan = setup::plan(args.client, &target, &machine)?;
            if dry_run { plan.report() } else { setup::apply(&plan)? }
        }
    };
    if args.json {
        show::json(&serde_json::to_value(&report)?);
    } else {
        show::setup(&report, if args.dry_run { Done::Not } else { Done::Yes });
    }
    Ok(0)
}
