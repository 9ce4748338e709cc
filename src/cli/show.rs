//! What people see.

use std::io::{IsTerminal, Write};
use std::time::SystemTime;

use serde_json::Value;

use crate::config::Share;
use crate::daemon::{Order, RoomOrder};
use crate::rt::Lines;

use super::setup::{Action, Report};

/// Prints JSON for programs.
pub(super) fn json(value: &Value) {
    println!("{value:#}");
}

/// Prints the outcome of an order for people.
pub(super) fn outcome(order: &Order, v: &Value) {
    match order {
        Order::Status => status(v),
        Order::Peers => peers(v),
        Order::Why(_) => why(v, 0),
        Order::Verify => {
            println!("{} artifacts, {} read and hashed", v["artifacts"], bytes(&v["bytes"]));
            for damage in v["damaged"].as_array().into_iter().flatten() {
                println!(
                    "damaged and removed: {} {}: {}",
                    text(&damage["filename"]),
                    text(&damage["digest"]),
                    text(&damage["what"])
                );
            }
            println!(
                "{} orphaned files removed, {} entries mended",
                v["orphans_removed"], v["index_entries_mended"]
            );
        }
        Order::Purge(_) => {
            println!("forgot {} pages and {} artifacts, {}", v["pages"], v["artifacts"], bytes(&v["bytes"]));
        }
        Order::Pin(_) => println!("{} stored artifacts are kept whatever else has to go", v["artifacts"]),
        Order::Unpin(_) => println!("{} stored artifacts may go again", v["artifacts"]),
        Order::Get(_) | Order::Prefetch(_) | Order::Export { .. } | Order::Import { .. } | Order::Room(_) => {
            why(v, 0)
        }
        Order::Gc => println!(
            "evicted {} artifacts ({}), removed {} orphaned files, forgot {} old pages",
            v["artifacts_evicted"],
            bytes(&v["bytes_freed"]),
            v["orphans_removed"],
            v["old_pages_forgotten"]
        ),
    }
}

/// With whom is shared, for the log.
pub(super) fn share(share: Share) -> &'static str {
    match share {
        Share::Off => "nobody",
        Share::Lan => "the local network",
        Share::Anyone => "everybody",
    }
}

fn peers(v: &Value) {
    let Some(peer) = v["peer"].as_str() else {
        println!("no swarm: no node runs on this data folder, or it runs with --no-swarm");
        return;
    };
    println!("this node  {peer}");
    for address in v["listeners"].as_array().into_iter().flatten() {
        println!("           {}/p2p/{peer}", text(address));
    }
    let rows = v["peers"].as_array().map(Vec::as_slice).unwrap_or_default();
    for row in v["unreachable"].as_array().into_iter().flatten() {
        let addresses =
            row["addresses"].as_array().map(|all| all.iter().map(text).collect::<Vec<_>>().join(" "));
        println!("not reached {}  {}", text(&row["peer"]), addresses.unwrap_or_default());
        println!("  tried {} times: {}", row["failures"], text(&row["error"]));
    }
    if rows.is_empty() {
        println!("nobody else is there; a peer that mDNS cannot find is named with --peer");
    }
    for row in rows {
        let there = match (row["connected"] == true, row["near"] == true) {
            (false, _) => "gone",
            (true, true) => "near",
            (true, false) => "elsewhere, in a room with us",
        };
        println!("{}", text(&row["peer"]));
        println!("  {there}  {}  {}", text(&row["agent"]), text(&row["address"]));
        let round_trip = row["round_trip_ms"].as_f64().map_or("unknown".into(), |ms| format!("{ms:.1} ms"));
        println!(
            "  gave {} in {} artifacts, took {}, lists {}, round trip {round_trip}",
            bytes(&row["gave_bytes"]),
            row["gave_artifacts"],
            bytes(&row["took_bytes"]),
            row["listed"],
        );
        if row["strikes"].as_u64().is_some_and(|n| n > 0) {
            let blocked = match &row["blocked_seconds"] {
                Value::Null => String::new(),
                time => format!(", not spoken with for {}", seconds(time)),
            };
            println!("  caught lying {} times{blocked}", row["strikes"]);
            for note in row["notes"].as_array().into_iter().flatten() {
                println!("    {}", text(note));
            }
        }
    }
}

fn status(v: &Value) {
    let store = &v["store"];
    match v["running"].as_bool() {
        Some(true) => println!(
            "running  {} on {}, for {}",
            text(&v["version"]),
            text(&v["listen"]),
            seconds(&v["uptime_seconds"])
        ),
        _ => println!("running  no"),
    }
    println!("data     {}", text(&v["data"]));
    println!(
        "stored   {} artifacts, {} of {}; index {}; {} free on the disk",
        store["artifacts"],
        bytes(&store["artifact_bytes"]),
        bytes(&store["budget_bytes"]),
        bytes(&store["index_bytes"]),
        bytes(&store["free_bytes"])
    );
    if v["offline"] == true {
        println!("offline  upstreams are not asked");
    }
    for index in v["pypi"].as_array().into_iter().flatten() {
        let private = if index["private"] == true { "  private" } else { "" };
        println!("pypi     {}  {}{private}", text(&index["name"]), text(&index["url"]));
    }
    let hosts = v["oci"].as_array().into_iter().flatten().filter_map(|r| r["hosts"][0].as_str());
    let hosts: Vec<_> = hosts.collect();
    if !hosts.is_empty() {
        println!("oci      {}", hosts.join("  "));
    }
    for source in v["apt"].as_array().into_iter().flatten() {
        let private = if source["private"] == true { "  private" } else { "" };
        println!("apt      {}{private}", text(&source["url"]));
    }
    for (cache, count) in v["answers"].as_object().into_iter().flatten() {
        println!("{cache:<8} {} answers, {}", count["answers"], bytes(&count["bytes"]));
    }
    if v["running"] == true {
        println!(
            "fetched  {} from upstreams, {} downloads under way",
            bytes(&v["upstream_bytes"]),
            v["in_flight"]
        );
    }
    for origin in v["origins"].as_array().into_iter().flatten() {
        let mut line = format!("asked    {}  {} times", text(&origin["origin"]), origin["requests"]);
        if let Some(error) = origin["last_error"]["text"].as_str() {
            line.push_str(&format!(
                "; last error {} ago: {error}",
                seconds(&origin["last_error"]["seconds_ago"])
            ));
        }
        println!("{line}");
    }
}

/// Keys and values, nested ones indented.
fn why(v: &Value, indent: usize) {
    for (key, value) in v.as_object().into_iter().flatten() {
        let label = key.replace('_', " ");
        match value {
            Value::Null => {}
            Value::Object(_) => {
                println!("{:indent$}{label}:", "");
                why(value, indent + 2);
            }
            _ if key.ends_with("_seconds") => println!("{:indent$}{label:<18} {}", "", seconds(value)),
            _ => println!("{:indent$}{label:<18} {}", "", text(value)),
        }
    }
}

/// Shows how far long work is, on a terminal only.
pub(super) fn progress(order: &Order, v: &Value) {
    if !std::io::stderr().is_terminal() {
        return;
    }
    let share = match &v["of_bytes"] {
        Value::Null => bytes(&v["bytes"]),
        of => format!("{} of {}", bytes(&v["bytes"]), bytes(of)),
    };
    match order {
        Order::Get(_) => eprint!("\r{share}   "),
        Order::Room(RoomOrder::Scope { .. } | RoomOrder::Create { .. }) => {
            eprint!("\r{} of {} events of the scope   ", v["events"], v["of"]);
        }
        Order::Room(_) => {
            let from = |key: &str| bytes(&v[key]);
            eprint!(
                "\r{} of {} files, {share} ({} from peers, {} from upstreams)   ",
                v["artifacts"],
                v["of"],
                from("peers_bytes"),
                from("upstream_bytes")
            );
        }
        // A package's file says its bytes alone.
        Order::Prefetch(_) if v["of"].is_null() => eprint!("\r{share}   "),
        _ => eprint!("\r{} of {} artifacts, {share}   ", v["artifacts"], v["of"]),
    }
}

/// Clears the progress line.
pub(super) fn end_progress() {
    if std::io::stderr().is_terminal() {
        eprint!("\r\x1b[K");
    }
}

/// Whether something was done, or only planned.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Done {
    Yes,
    Not,
}

/// Prints what a set-up did, or would do.
pub(super) fn setup(report: &Report, done: Done) {
    let did = match (report.action, done) {
        (Action::Created, Done::Yes) => "created",
        (Action::Created, Done::Not) => "would create",
        (Action::Changed, Done::Yes) => "changed",
        (Action::Changed, Done::Not) => "would change",
        (Action::Unchanged, _) => "is as it should be already:",
        (Action::Restored, _) => "put back as it was:",
        (Action::Removed, _) => "removed",
        (Action::TakenOut, _) => "took dpm's lines out of",
        (Action::Nothing, _) => "nothing to undo in",
    };
    println!("{}: {did} {}", report.client, report.file.display());
    for warning in &report.warnings {
        println!("warning: {warning}");
    }
    for note in report.notes.iter().filter(|_| report.action != Action::Nothing) {
        println!("note: {note}");
    }
}

pub(super) fn text(v: &Value) -> String {
    v.as_str().map_or_else(|| v.to_string(), str::to_owned)
}

pub(super) fn bytes(v: &Value) -> String {
    let mut size = v.as_u64().unwrap_or_default() as f64;
    for unit in ["B", "kB", "MB", "GB"] {
        if size < 1000.0 {
            return if unit == "B" { format!("{size} B") } else { format!("{size:.1} {unit}") };
        }
        size /= 1000.0;
    }
    format!("{size:.1} TB")
}

pub(super) fn seconds(v: &Value) -> String {
    humantime::format_duration(std::time::Duration::from_secs(v.as_u64().unwrap_or_default())).to_string()
}

/// Sends the program's own log to `lines`: warnings and news, more with `DPM_LOG=debug`.
pub(super) fn log_to(lines: Lines) {
    let level = std::env::var("DPM_LOG").ok().and_then(|l| l.parse().ok()).unwrap_or(log::LevelFilter::Info);
    if log::set_boxed_logger(Box::new(Log(lines))).is_ok() {
        log::set_max_level(level);
    }
}

struct Log(Lines);

impl log::Log for Log {
    fn enabled(&self, metadata: &log::Metadata<'_>) -> bool {
        let target = metadata.target();
        // matrix-sdk warns of what is normal for a node (it keeps no backup of keys) at each news, and what fails is
        // told in our words.
        let quiet = target.starts_with("matrix_sdk") && log::max_level() < log::LevelFilter::Debug;
        // Libraries speak up for warnings only; ureq would log whole URLs otherwise.
        target.starts_with("dpm") || (metadata.level() <= log::Level::Warn && !quiet)
    }

    fn log(&self, record: &log::Record<'_>) {
        if self.enabled(record.metadata()) {
            let now = humantime::format_rfc3339_millis(SystemTime::now());
            self.0.add(|out| {
                // Writing into memory does not fail.
                let _ = write!(out, "{now} {} {}", record.level().as_str().to_lowercase(), record.args());
            });
        }
    }

    fn flush(&self) {}
}

/// Allows as many open files as the system lets us: a client is one, an artifact being read another.
pub(super) fn raise_open_files() {
    use rustix::process::{Resource, getrlimit, setrlimit};
    let mut limit = getrlimit(Resource::Nofile);
    limit.current = limit.maximum;
    if let Err(e) = setrlimit(Resource::Nofile, limit) {
        log::debug!("the limit of open files stays as it is: {e}");
    }
}
