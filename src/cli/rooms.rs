//! `dpm room …`: orders about Matrix rooms to the running node, and where a login's secret comes from.

use std::io::{Cursor, IsTerminal, Read, Write};
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, bail};
use argh::FromArgs;
use rustix::termios::{LocalModes, OptionalActions, tcgetattr, tcsetattr};
use serde_json::{Value, json};

use crate::daemon::{Order, RoomOrder};

use super::{orders, show};

/// Longest secret in bytes.
const SECRET_BYTES: u64 = 16 << 10;

/// Matrix rooms, through which members find each other's packages. Needs a running node.
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

/// Make a room. Whoever knows its id may join, unless somebody is invited; it is in no public list.
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

/// Carries out `dpm room …`.
pub(super) fn room(args: RoomCommand) -> Result<u8> {
    let mut login = Value::Null;
    let (order, config, data, json) = match args.command {
        Sub::Login(a) => {
            login = json!({"homeserver": a.homeserver, "user": a.user});
            let (name, secret) = secret(a.password_file.as_deref(), a.token_file.as_deref(), &a.user)?;
            login[name] = secret.into();
            (RoomOrder::Login, a.config, a.data, a.json)
        }
        Sub::Logout(a) => (RoomOrder::Logout, a.config, a.data, a.json),
        Sub::Create(a) => {
            let order = RoomOrder::Create { name: a.name, encrypted: a.encrypted, invite: a.invite };
            (order, a.config, a.data, a.json)
        }
        Sub::Join(a) => (RoomOrder::Join { room: a.room, via: a.via }, a.config, a.data, a.json),
        Sub::Leave(a) => (RoomOrder::Leave(a.room), a.config, a.data, a.json),
        Sub::List(a) => (RoomOrder::List, a.config, a.data, a.json),
    };
    let order = Order::Room(order);
    let streams =
        orders::Streams { input: Box::new(Cursor::new(login.to_string())), output: &mut std::io::sink() };
    let outcome = orders::carry_out(&order, config, data, true, streams)?;
    match (json, &order) {
        (true, _) => show::json(&outcome),
        (false, Order::Room(order)) => tell(order, &outcome),
        (false, _) => {}
    }
    Ok(0)
}

fn tell(order: &RoomOrder, v: &Value) {
    let text = |name: &str| v[name].as_str().unwrap_or_default();
    match order {
        RoomOrder::Login => println!("logged in as {}", text("user")),
        RoomOrder::Logout => println!("logged out"),
        RoomOrder::Create { .. } => println!("made {}", text("room")),
        RoomOrder::Join { .. } => println!("joined {}", text("room")),
        RoomOrder::Leave(_) => println!("left {}", text("left")),
        RoomOrder::List => list(v),
    }
}

fn list(v: &Value) {
    let text = |v: &Value, name: &str| v[name].as_str().unwrap_or_default().to_owned();
    if v["user"].is_null() {
        println!("nobody is logged in; `dpm room login` does it");
    } else {
        let why = v["why"].as_str().map(|why| format!(" ({why})")).unwrap_or_default();
        println!("{}  {}  {}{why}", text(v, "user"), text(v, "homeserver"), text(v, "connection"));
    }
    for room in v["rooms"].as_array().into_iter().flatten() {
        let how = match (room["invited"] == true, room["encrypted"] == true) {
            (true, _) => "  invited: `dpm room join` accepts",
            (false, true) => "  encrypted",
            (false, false) => "",
        };
        println!("{}  {}  {} members{how}", text(room, "room"), text(room, "name"), room["members"]);
    }
}

/// The secret of a login, and whether it is a `password` or a `token`.
fn secret(
    password_file: Option<&Path>,
    token_file: Option<&Path>,
    user: &str,
) -> Result<(&'static str, String)> {
    let stated = |name: &str| std::env::var(name).ok().filter(|secret| !secret.is_empty());
    Ok(match (password_file, token_file) {
        (Some(_), Some(_)) => bail!("--password-file and --token-file do not go together"),
        (Some(file), None) => ("password", read(file)?),
        (None, Some(file)) => ("token", read(file)?),
        (None, None) => match (stated("DPM_ROOM_PASSWORD"), stated("DPM_ROOM_TOKEN")) {
            (Some(_), Some(_)) => bail!("DPM_ROOM_PASSWORD and DPM_ROOM_TOKEN are both set; one is needed"),
            (Some(password), None) => ("password", password),
            (None, Some(token)) => ("token", token),
            (None, None) if std::io::stdin().is_terminal() => ("password", prompt(user)?),
            (None, None) => bail!(
                "no password was given: on a terminal it is asked for; else --password-file, --token-file, \
                 DPM_ROOM_PASSWORD or DPM_ROOM_TOKEN has it"
            ),
        },
    })
}

fn read(file: &Path) -> Result<String> {
    let mut text = String::new();
    let opened = std::fs::File::open(file).with_context(|| format!("open {}", file.display()))?;
    let length = opened.take(SECRET_BYTES + 1).read_to_string(&mut text);
    let length = length.with_context(|| format!("read {}", file.display()))?;
    let secret = text.trim_end_matches(['\r', '\n']);
    if secret.is_empty() || secret.contains('\n') || length as u64 > SECRET_BYTES {
        bail!("{} holds no secret: one line is expected", file.display());
    }
    Ok(secret.to_owned())
}

/// Asks on the terminal, which does not show what is typed.
fn prompt(user: &str) -> Result<String> {
    let stdin = std::io::stdin();
    eprint!("password of {user}: ");
    std::io::stderr().flush()?;
    let before = tcgetattr(&stdin)?;
    let mut silent = before.clone();
    silent.local_modes.remove(LocalModes::ECHO);
    tcsetattr(&stdin, OptionalActions::Flush, &silent)?;
    let mut line = String::new();
    let read = stdin.read_line(&mut line);
    tcsetattr(&stdin, OptionalActions::Flush, &before)?;
    eprintln!();
    read?;
    match line.trim_end_matches(['\r', '\n']) {
        "" => bail!("no password was given"),
        password => Ok(password.to_owned()),
    }
}
