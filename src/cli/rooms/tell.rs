//! What people see of rooms.

use std::collections::BTreeMap;

use serde_json::Value;

use crate::cli::show::{bytes, seconds, text};
use crate::daemon::{Change, RoomOrder};

/// Things of a kind that are shown without being asked for.
const SHOWN: usize = 20;

/// Ecosystems that dpm serves.
const SERVED: [&str; 2] = ["pypi", "oci"];

/// Prints the outcome of an order.
pub(super) fn tell(order: &RoomOrder, v: &Value) {
    match order {
        RoomOrder::Login => println!("logged in as {}", text(&v["user"])),
        RoomOrder::Logout => println!("logged out"),
        RoomOrder::Create { .. } => {
            from(v);
            println!("made {}", text(&v["room"]));
            match v["packages"].as_u64() {
                Some(0) | None => println!("it mirrors nothing yet: `dpm room scope` says what it is to"),
                Some(n) => println!("it mirrors {n} packages and patterns: `dpm room sync` fetches them"),
            }
        }
        RoomOrder::Join { mirror, .. } => {
            let mode = mirror.map(|mode| format!(", mirror: {}", mode.as_str())).unwrap_or_default();
            println!("joined {}{mode}", text(&v["room"]));
        }
        RoomOrder::Leave(_) => println!("left {}", text(&v["left"])),
        RoomOrder::List => list(v),
        RoomOrder::Scope { change, .. } => scope(*change, v),
        RoomOrder::Mirror { .. } => println!("{}  mirror: {}", text(&v["room"]), text(&v["mirror"])),
        RoomOrder::Show { .. } => show(v),
        RoomOrder::Sync { .. } => sync(v),
    }
}

fn rows<'v>(v: &'v Value, name: &str) -> &'v [Value] {
    v[name].as_array().map(Vec::as_slice).unwrap_or_default()
}

/// What was read of lock files.
fn from(v: &Value) {
    for file in rows(v, "from") {
        let kinds = file["packages"].as_object();
        let counts: Vec<_> =
            kinds.into_iter().flatten().map(|(kind, count)| format!("{count} {kind}")).collect();
        let counts = if counts.is_empty() { "no packages".to_owned() } else { counts.join(", ") };
        println!("{}: {counts}", text(&file["file"]));
        for kind in
            kinds.into_iter().flatten().map(|(kind, _)| kind).filter(|k| !SERVED.contains(&k.as_str()))
        {
            println!("  {kind}: dpm does not serve these, so they are named in the room and not fetched");
        }
        let over = rows(file, "passed_over");
        for passed in over.iter().take(SHOWN) {
            println!("  passed over: {} ({})", text(&passed["name"]), text(&passed["why"]));
        }
        more(over.len(), "passed over");
    }
}

/// How many are not shown.
fn more(count: usize, what: &str) {
    if count > SHOWN {
        println!("  and {} more {what}; --json lists them", count - SHOWN);
    }
}

fn list(v: &Value) {
    if v["user"].is_null() {
        println!("nobody is logged in; `dpm room login` does it");
    } else {
        let why = v["why"].as_str().map(|why| format!(" ({why})")).unwrap_or_default();
        println!("{}  {}  {}{why}", text(&v["user"]), text(&v["homeserver"]), text(&v["connection"]));
    }
    for room in rows(v, "rooms") {
        let mirror = || match room["mirror"].as_str() {
            Some("lazy") => String::new(),
            None => "  not used by dpm: `dpm room join` has it looked at".to_owned(),
            Some(mode) => format!("  mirror: {mode}"),
        };
        let how = match (room["invited"] == true, room["encrypted"] == true) {
            (true, _) => "  invited: `dpm room join` accepts".to_owned(),
            (false, true) => format!("  encrypted{}", mirror()),
            (false, false) => mirror(),
        };
        let name = room["name"].as_str().unwrap_or_default();
        println!("{}  {name}  {} members{how}", text(&room["room"]), room["members"]);
    }
}

fn scope(change: Change, v: &Value) {
    from(v);
    let packages = rows(v, "packages");
    for event in rows(v, "unreadable") {
        println!("not read: the event {:?}: {}", text(&event["key"]), text(&event["why"]));
    }
    if change == Change::Nothing {
        for pattern in packages {
            println!("{}", text(pattern));
        }
        return;
    }
    println!(
        "{}: {} added, {} taken out, in {} events",
        text(&v["room"]),
        v["added"],
        v["removed"],
        v["events"]
    );
    let mut kinds = BTreeMap::new();
    for pattern in packages {
        let kind = pattern.as_str().and_then(|p| p.strip_prefix("pkg:")?.split('/').next());
        *kinds.entry(kind.unwrap_or_default()).or_insert(0) += 1;
    }
    let counts: Vec<_> = kinds.into_iter().map(|(kind, count)| format!("{count} {kind}")).collect();
    println!("it mirrors {}", if counts.is_empty() { "nothing".to_owned() } else { counts.join(", ") });
}

/// `12 files (3.4 MB)`
fn files(v: &Value) -> String {
    format!("{} files ({})", v["files"], bytes(&v["bytes"]))
}

fn show(v: &Value) {
    let name = v["name"].as_str().unwrap_or_default();
    println!("{}  {name}  mirror: {}", text(&v["room"]), text(&v["mirror"]));
    let patterns = match v["scope"]["patterns"].as_u64() {
        Some(n) if n > 0 => format!(", {n} patterns"),
        _ => String::new(),
    };
    println!("scope    {} packages{patterns}", v["scope"]["packages"]);
    println!("members  have {}, not here {}", files(&v["in_scope"]), files(&v["missing_here"]));
    if !v["own"].is_null() {
        println!("this node tells of {} files", v["own"]["files"]);
    }
    for node in rows(v, "members") {
        member(node);
    }
    if v["missing"].is_array() {
        println!("not here:");
        for file in rows(v, "missing") {
            let who: Vec<_> = rows(file, "members").iter().map(text).collect();
            println!(
                "  {}  {}  {}  at {}",
                text(&file["package"]),
                text(&file["file"]),
                bytes(&file["bytes"]),
                who.join(" ")
            );
        }
        if v["missing_not_listed"] != 0 {
            println!("  and {} more; --json lists up to 100,000", v["missing_not_listed"]);
        }
    }
    let refused = rows(v, "refused");
    for event in refused.iter().take(SHOWN) {
        let (sender, kind) = (text(&event["sender"]), text(&event["kind"]));
        println!(
            "counts for nothing: {kind} of {sender}, {} ago: {}",
            seconds(&event["seconds_ago"]),
            text(&event["why"])
        );
    }
    more(refused.len(), "that count for nothing");
    for dispute in rows(v, "disputes") {
        println!(
            "members disagree on {} of {}: nothing is served for it",
            text(&dispute["file"]),
            text(&dispute["package"])
        );
        for member in rows(dispute, "members") {
            println!(
                "  {} ({}) says {}",
                text(&member["user"]),
                text(&member["peer"]),
                text(&member["says"])
            );
        }
    }
}

fn member(node: &Value) {
    let name = node["name"].as_str().filter(|name| !name.is_empty()).unwrap_or("(no name)");
    let link = match (node["connected"] == true, node["round_trip_ms"].as_f64()) {
        (true, Some(ms)) => format!("{ms:.1} ms"),
        (true, None) => "connected".to_owned(),
        (false, _) => "not connected".to_owned(),
    };
    println!("{name}  {}  {}", text(&node["user"]), text(&node["peer"]));
    println!("  {link}  {}  said {} ago", text(&node["agent"]), seconds(&node["age_seconds"]));
    match (node["present"] == true, node["too_old"] == true) {
        (false, _) => println!("  is no longer in the room: what it said counts for nothing"),
        (true, true) => println!("  said nothing for too long: what it said counts for nothing"),
        (true, false) => println!(
            "  {} packages, {}, not here {}",
            node["packages"],
            files(node),
            files(&node["missing_here"])
        ),
    }
    if node["known"] == false && !node["says_files"].is_null() {
        println!("  its catalogue of {} files is not here yet", node["says_files"]);
    }
    if let Some(trouble) = node["trouble"].as_str() {
        println!("  {trouble}");
    }
    for refused in rows(node, "refused_addresses") {
        println!("  not dialled: {}: {}", text(&refused["address"]), text(&refused["why"]));
    }
}

fn sync(v: &Value) {
    println!("{} fetched from upstreams", files(&v["fetched"]));
    println!("{} from peers", files(&v["from_peers"]));
    for giver in rows(v, "givers") {
        let name = giver["name"].as_str().unwrap_or("(not of the room)");
        println!("  {} from {name} {}", bytes(&giver["bytes"]), text(&giver["peer"]));
    }
    println!("{} here already", files(&v["already_here"]));
    for kind in rows(v, "left_out") {
        println!(
            "{} packages of {} left out: dpm does not serve these",
            kind["packages"],
            text(&kind["type"])
        );
    }
    for node in rows(v, "unknown") {
        let why = node["why"].as_str().unwrap_or("it has not come yet");
        eprintln!("not known what {} ({}) has: {why}", text(&node["user"]), text(&node["peer"]));
    }
    let missing = rows(v, "missing");
    for file in missing.iter().take(SHOWN) {
        let name = file["file"].as_str().map(|name| format!("  {name}")).unwrap_or_default();
        eprintln!("missing: {}{name}: {}", text(&file["package"]), text(&file["why"]));
    }
    if missing.len() > SHOWN || v["missing_not_listed"] != 0 {
        let all = missing.len() as u64 + v["missing_not_listed"].as_u64().unwrap_or_default();
        eprintln!("missing: {} more; --json lists up to 10,000", all - SHOWN as u64);
    }
}
