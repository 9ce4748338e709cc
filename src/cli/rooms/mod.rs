//! `dpm room …`: orders about Matrix rooms to the running node.

mod lock;
mod secret;
mod tell;

use std::io::Cursor;
use std::path::PathBuf;

use anyhow::{Result, bail};
use argh::FromArgs;
use serde_json::json;

use crate::daemon::{Change, Order, RoomOrder};
use crate::members::Mode;

use super::{orders, prefetch};
use lock::Taken;

/// Most that is listed of what is missing, for people and for programs.
const LISTED: [usize; 2] = [100, 100_000];

/// Matrix rooms, through which the members of a project find each other's packages. `dpm room login`, then one of them
/// `dpm room create NAME --from uv.lock`, the others `dpm room join ROOM`; `dpm room sync ROOM` brings everything here.
/// Needs a running node.
#[derive(FromArgs)]
#[argh(subcommand, name = "room")]
pub(super) struct RoomCommand {
    #[argh(subcommand)]
    command: Sub,
}

#[derive(FromArgs)]
#[argh(subcommand)]
enum Sub {
    Login(Login),
    Logout(Logout),
    Create(Create),
    Join(Join),
    Leave(Leave),
    List(List),
    Scope(Scope),
    Mirror(Mirror),
    Show(Show),
    Sync(Sync),
}

/// Log this node in to a Matrix homeserver, best with an account of its own. The password or token is asked for on a
/// terminal, or comes from a file, or from $DPM_ROOM_PASSWORD or $DPM_ROOM_TOKEN.
#[derive(FromArgs)]
#[argh(subcommand, name = "login")]
struct Login {
    /// the homeserver's address: https, and where its client API is
    #[argh(option, arg_name = "url")]
    homeserver: String,
    /// the user's name there, or @name:server
    #[argh(option, arg_name = "name")]
    user: String,
    /// a file that holds the password
    #[argh(option, arg_name = "file")]
    password_file: Option<PathBuf>,
    /// a file that holds an access token, which no other client uses
    #[argh(option, arg_name = "file")]
    token_file: Option<PathBuf>,
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

/// Log out and forget the account with its keys. The rooms are not left.
#[derive(FromArgs)]
#[argh(subcommand, name = "logout")]
struct Logout {
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

/// Make a room that mirrors what lock files name. Whoever knows its id may join, unless somebody is invited; it is in no
/// public list.
#[derive(FromArgs)]
#[argh(subcommand, name = "create")]
struct Create {
    /// what it is called
    #[argh(positional)]
    name: String,
    /// encrypt what is said in it; who is in it and what nodes state there stays readable to the homeserver
    #[argh(switch)]
    encrypted: bool,
    /// only those who are invited may join; repeatable
    #[argh(option, arg_name = "@name:server")]
    invite: Vec<String>,
    /// mirror what a lock file names: uv.lock, poetry.lock, requirements.txt, package-lock.json, Cargo.lock, or images.txt
    /// with an image a line; repeatable
    #[argh(option, arg_name = "lockfile")]
    from: Vec<PathBuf>,
    /// mirror these packages, too: pkg:pypi/six@1.17.0, pkg:pypi/corp-*, "pkg:oci/*?repository_url=ghcr.io/corp/*"; repeatable
    #[argh(option, arg_name = "pattern")]
    scope: Vec<String>,
    /// how this node uses it: lazy takes from members what a client wants, follow fetches what they have beforehand, off
    /// only gives (default: as dpm.toml says, else lazy)
    #[argh(option, arg_name = "mode")]
    mirror: Option<Mode>,
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

/// Join a room.
#[derive(FromArgs)]
#[argh(subcommand, name = "join")]
struct Join {
    /// its id (!…) or alias (#…:server)
    #[argh(positional)]
    room: String,
    /// a server that is in the room, where our homeserver is not; repeatable
    #[argh(option, arg_name = "server")]
    via: Vec<String>,
    /// how this node uses it: lazy takes from members what a client wants, follow fetches what they have beforehand, off
    /// only gives (default: as dpm.toml says, else lazy)
    #[argh(option, arg_name = "mode")]
    mirror: Option<Mode>,
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

/// Leave a room, or turn an invitation down.
#[derive(FromArgs)]
#[argh(subcommand, name = "leave")]
struct Leave {
    /// its id
    #[argh(positional)]
    room: String,
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

/// Show the account, how it stands with the homeserver, and the rooms.
#[derive(FromArgs)]
#[argh(subcommand, name = "list")]
struct List {
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

/// Show what a room mirrors, or change it. Without --replace things are added. Members with the power to set its state may;
/// that is whoever made it, unless the room says otherwise.
#[derive(FromArgs)]
#[argh(subcommand, name = "scope")]
struct Scope {
    /// its id, or its name if only one has it
    #[argh(positional)]
    room: String,
    /// add what a lock file names: uv.lock, poetry.lock, requirements.txt, package-lock.json, Cargo.lock, or images.txt with
    /// an image a line; repeatable
    #[argh(option, arg_name = "lockfile")]
    from: Vec<PathBuf>,
    /// add these packages: pkg:pypi/six@1.17.0, pkg:pypi/corp-*, "pkg:oci/*?repository_url=ghcr.io/corp/*"; repeatable
    #[argh(option, arg_name = "pattern")]
    add: Vec<String>,
    /// mirror these only, and nothing that was mirrored before
    #[argh(switch)]
    replace: bool,
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

/// Use a room otherwise from now on.
#[derive(FromArgs)]
#[argh(subcommand, name = "mirror")]
struct Mirror {
    /// its id, or its name if only one has it
    #[argh(positional)]
    room: String,
    /// lazy takes from members what a client wants, follow fetches what they have beforehand, off only gives
    #[argh(positional)]
    mode: Mode,
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

/// Show a room's members, what they have, and what of it is not here; what counted for nothing, and of what they disagree.
#[derive(FromArgs)]
#[argh(subcommand, name = "show")]
struct Show {
    /// its id, or its name if only one has it
    #[argh(positional)]
    room: String,
    /// list what is not here, and who has it: 100 files, with --json 100,000
    #[argh(switch)]
    missing: bool,
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

/// Fetch everything in a room's scope that is not here: what members have, and what the scope names exactly (a version, an
/// image's tag) and nobody has yet from its upstream. Names are the index's, so it has to agree with the members. Given
/// again it goes on where it was. Exits with 1 when something could not be had.
#[derive(FromArgs)]
#[argh(subcommand, name = "sync")]
struct Sync {
    /// its id, or its name if only one has it
    #[argh(positional)]
    room: String,
    /// what comes from upstreams is for these machines, as linux/arm64 or darwin/arm64; repeatable (default: Linux on this
    /// machine's processor)
    #[argh(option, arg_name = "os/arch")]
    platform: Vec<String>,
    /// what comes from upstreams is for every machine
    #[argh(switch)]
    all_platforms: bool,
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

/// Carries out `dpm room …`.
pub(super) fn room(args: RoomCommand) -> Result<u8> {
    // What goes with the order as bytes, and what was read of lock files.
    let (mut input, mut taken) = (String::new(), Taken::default());
    let (order, config, data, json) = match args.command {
        Sub::Login(a) => {
            let mut login = json!({"homeserver": a.homeserver, "user": a.user});
            let (name, secret) =
                secret::secret(a.password_file.as_deref(), a.token_file.as_deref(), &a.user)?;
            login[name] = secret.into();
            input = login.to_string();
            (RoomOrder::Login, a.config, a.data, a.json)
        }
        Sub::Logout(a) => (RoomOrder::Logout, a.config, a.data, a.json),
        Sub::Create(a) => {
            taken = Taken::of(&a.from, &a.scope)?;
            let order = RoomOrder::Create {
                name: a.name,
                encrypted: a.encrypted,
                invite: a.invite,
                mirror: a.mirror,
            };
            (order, a.config, a.data, a.json)
        }
        Sub::Join(a) => {
            let order = RoomOrder::Join { room: a.room, via: a.via, mirror: a.mirror };
            (order, a.config, a.data, a.json)
        }
        Sub::Leave(a) => (RoomOrder::Leave(a.room), a.config, a.data, a.json),
        Sub::List(a) => (RoomOrder::List, a.config, a.data, a.json),
        Sub::Scope(a) => {
            taken = Taken::of(&a.from, &a.add)?;
            let change = match (a.replace, a.from.is_empty() && a.add.is_empty()) {
                (true, true) => bail!("--replace needs what takes its place: --from or --add"),
                (true, false) => Change::Replace,
                (false, true) => Change::Nothing,
                (false, false) => Change::Add,
            };
            (RoomOrder::Scope { room: a.room, change }, a.config, a.data, a.json)
        }
        Sub::Mirror(a) => (RoomOrder::Mirror { room: a.room, mode: a.mode }, a.config, a.data, a.json),
        Sub::Show(a) => {
            let missing = a.missing.then_some(LISTED[usize::from(a.json)]);
            (RoomOrder::Show { room: a.room, missing }, a.config, a.data, a.json)
        }
        Sub::Sync(a) => {
            let platforms = prefetch::platforms(a.all_platforms, a.platform)?;
            (RoomOrder::Sync { room: a.room, platforms }, a.config, a.data, a.json)
        }
    };
    if input.is_empty() {
        input = taken.lines();
    }
    let order = Order::Room(order);
    let streams = orders::Streams { input: Box::new(Cursor::new(input)), output: &mut std::io::sink() };
    let mut outcome = orders::carry_out(&order, config, data, json, streams)?;
    let Order::Room(order) = order else { return Ok(0) };
    taken.report(&order, &mut outcome);
    match json {
        true => super::show::json(&outcome),
        false => tell::tell(&order, &outcome),
    }
    let empty = |name: &str| outcome[name].as_array().is_none_or(Vec::is_empty);
    let incomplete = matches!(order, RoomOrder::Sync { .. }) && !(empty("missing") && empty("unknown"));
    Ok(u8::from(incomplete))
}
