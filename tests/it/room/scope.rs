//! What a room mirrors: from lock files into its state, and from there into a node.

use std::path::Path;

use serde_json::{Value, json};

use super::commands::Node;
use super::synapse::{Account, Limits, Synapse};
use crate::clients::process::{Home, counterpart};
use crate::support::process::{run, text};
use crate::support::{Project, Upstream, installable};

/// The scope events of a room as its homeserver has them: state key and content.
fn state(synapse: &Synapse, room: &str, account: &Account) -> Vec<(String, Value)> {
    let path = format!("client/v3/rooms/{room}/state");
    let all = synapse.ask("GET", &path, Some(&account.token), None);
    let events = all.as_array().expect("events").iter().filter(|event| event["type"] == "org.dpm.scope");
    let key = |event: &Value| event["state_key"].as_str().expect("a key").to_owned();
    let mut found: Vec<_> = events.map(|event| (key(event), event["content"].clone())).collect();
    found.sort_by(|a, b| a.0.cmp(&b.0));
    found
}

/// Three projects that a lock made by uv names, and that file.
fn locked(upstream: &Upstream, home: &Home) -> (Vec<Project>, std::path::PathBuf) {
    let projects: Vec<_> = [("alpha", &["beta"][..]), ("beta", &[]), ("gamma", &[])]
        .into_iter()
        .map(|(name, needs)| Project::of(name, installable(name, needs, 5000)).publish(upstream))
        .collect();
    let index = upstream.url("/simple/");
    home.write(
        "app/pyproject.toml",
        &format!(
            "[project]\nname = \"app\"\nversion = \"0.1\"\nrequires-python = \">=3.8\"\n\
             dependencies = [\"alpha\", \"gamma\"]\n[[tool.uv.index]]\nurl = \"{index}\"\ndefault = true\n"
        ),
    );
    let mut uv = home.client(counterpart("uv", "uv"));
    uv.args(["lock", "--quiet", "--no-cache", "--directory", "app", "--python"]);
    home.run(uv.arg(counterpart("pip", "python")));
    (projects, home.path("app/uv.lock"))
}

fn arg(path: &Path) -> &str {
    path.to_str().expect("a path")
}

/// A lock file makes a room, and the room's first node gets all of it.
#[test]
fn a_lock_file_becomes_a_room() {
    let (synapse, upstream, home) = (Synapse::start(Limits::Default), Upstream::start(), Home::bare());
    let (projects, lock) = locked(&upstream, &home);
    let (ada, bob) = (synapse.account("ada"), synapse.account("bob"));
    let node = Node::before(&upstream.url("/simple/"));
    node.login(&synapse, &ada);
    let images = node.file("images.txt", "ghcr.io/corp/app:1.2\n");
    let words =
        ["create", "project", "--from", arg(&lock), "--from", arg(&images), "--scope", "pkg:pypi/corp-*"];
    let made = node.json(&words);
    let room = made["room"].as_str().expect("a room").to_owned();
    assert_eq!((&made["packages"], &made["mirror"]), (&json!(5), &json!("lazy")));
    let from = &made["from"][0];
    assert_eq!(from["packages"], json!({"pypi": 3}));
    assert_eq!(from["passed_over"], json!([{"name": "app", "why": "from a folder"}]));

    // The homeserver has it from the room's first moment on.
    let image = "pkg:oci/app?repository_url=ghcr.io/corp/app&tag=1.2";
    let packages =
        [image, "pkg:pypi/alpha@1.0", "pkg:pypi/beta@1.0", "pkg:pypi/corp-*", "pkg:pypi/gamma@1.0"];
    let event = json!({"version": 1, "packages": packages});
    assert_eq!(state(&synapse, &room, &ada), [("scope-0".to_owned(), event)]);
    assert_eq!(node.json(&["scope", "project"])["packages"], json!(packages));
    assert_eq!(node.says(&["scope", "project"]), packages.join("\n") + "\n");

    // Who joins knows it, and may not change it.
    let other = Node::start();
    other.login(&synapse, &bob);
    assert_eq!(other.json(&["join", &room, "--mirror", "follow"])["mirror"], "follow");
    assert_eq!(other.json(&["scope", &room])["packages"], json!(packages));
    let why = other.fails(&["scope", &room, "--add", "pkg:pypi/delta"]);
    assert!(why.contains("0 of 1 events") && why.contains("refuses"), "{why}");
    assert!(other.says(&["list"]).contains("mirror: follow"));
    assert!(other.says(&["mirror", &room, "off"]).contains("mirror: off"));
    assert_eq!(other.json(&["list"])["rooms"][0]["mirror"], "off");

    // A change takes the one event that it concerns.
    let changed = node.json(&["scope", "project", "--add", "pkg:pypi/delta@1.0"]);
    assert_eq!(
        (&changed["added"], &changed["removed"], &changed["events"]),
        (&json!(1), &json!(0), &json!(1))
    );
    let changed = node.json(&["scope", "project", "--add", "pkg:pypi/delta@1.0"]);
    assert_eq!(changed["events"], 0);
    let changed = node.json(&["scope", "project", "--replace", "--from", arg(&lock)]);
    assert_eq!((&changed["added"], &changed["removed"]), (&json!(0), &json!(3)));
    let event =
        json!({"version": 1, "packages": ["pkg:pypi/alpha@1.0", "pkg:pypi/beta@1.0", "pkg:pypi/gamma@1.0"]});
    assert_eq!(state(&synapse, &room, &bob), [("scope-0".to_owned(), event)]);

    // Nobody has anything yet: it comes from the index, once.
    let hits: Vec<_> = projects.iter().map(|project| upstream.hits(&project.file_path())).collect();
    let synced = node.json(&["sync", "project"]);
    assert_eq!(synced["fetched"]["files"], 3, "{synced:#}");
    assert_eq!((&synced["missing"], &synced["left_out"]), (&json!([]), &json!([])));
    for (project, hits) in projects.iter().zip(hits) {
        assert_eq!(upstream.hits(&project.file_path()), hits + 1);
    }
    let again = node.json(&["sync", "project"]);
    assert_eq!((&again["fetched"]["files"], &again["already_here"]["files"]), (&json!(0), &json!(3)));

    // What there is not is named, and everything else comes all the same.
    node.json(&["scope", "project", "--add", "pkg:pypi/alpha@7", "--add", "pkg:npm/x@1"]);
    let words = node.words(&["sync", "project", "--json"]);
    let output = run(&words.iter().map(|w| &**w).collect::<Vec<_>>());
    assert_eq!(output.status.code(), Some(1));
    let synced: Value = serde_json::from_slice(&output.stdout).expect("JSON");
    assert_eq!(synced["missing"][0]["package"], "pkg:pypi/alpha@7");
    assert_eq!(synced["left_out"], json!([{"type": "npm", "packages": 1}]));
    let words = node.words(&["sync", "project"]);
    let output = run(&words.iter().map(|w| &**w).collect::<Vec<_>>());
    let (out, errors) = (text(&output.stdout), text(&output.stderr));
    assert!(errors.contains("missing: pkg:pypi/alpha@7: its index lists no file"), "{errors}");
    assert!(out.contains("1 packages of npm left out"), "{out}");
}

/// With the pace that Synapse has by default: what does not fit in one event takes several, and few.
#[test]
fn thousands_of_packages_are_a_handful_of_events() {
    let synapse = Synapse::start(Limits::Default);
    let ada = synapse.account("ada");
    let node = Node::start();
    node.login(&synapse, &ada);
    let lines = |range: std::ops::Range<u32>| -> String {
        range.map(|n| format!("package-{n:05}==1.{n}.0\n")).collect()
    };
    let many = node.file("requirements.txt", &lines(0..15_000));
    let room = node.json(&["create", "large", "--from", arg(&many)])["room"].as_str().unwrap().to_owned();
    let events = state(&synapse, &room, &ada);
    assert!((10..20).contains(&events.len()), "{}", events.len());
    let count = |events: &[(String, Value)]| {
        events.iter().map(|(_, content)| content["packages"].as_array().map_or(0, Vec::len)).sum::<usize>()
    };
    assert_eq!(count(&events), 15_000);
    let more = node.file("requirements-more.txt", &lines(14_999..15_001));
    let changed = node.json(&["scope", "large", "--from", arg(&more)]);
    assert_eq!((&changed["added"], &changed["events"]), (&json!(1), &json!(1)));
    let few = node.file("requirements-few.txt", &lines(0..1));
    let changed = node.json(&["scope", "large", "--replace", "--from", arg(&few)]);
    assert_eq!(changed["removed"], 15_000);
    let events = state(&synapse, &room, &ada);
    assert_eq!(count(&events), 1);
    assert!(events[1..].iter().all(|(_, content)| *content == json!({})), "they are withdrawn");
    assert_eq!(node.json(&["scope", "large"])["packages"], json!(["pkg:pypi/package-00000@1.0.0"]));
}

#[test]
fn what_is_no_scope() {
    let node = Node::start();
    let rows = [
        (vec!["create", "x", "--from", "setup.py"], "no lock file that dpm knows by its name: uv.lock"),
        (vec!["create", "x", "--from", "nowhere/uv.lock"], "read nowhere/uv.lock"),
        (vec!["create", "x", "--scope", "six"], "six: a package URL begins with pkg:"),
        (vec!["scope", "!x", "--replace"], "--replace needs"),
        (vec!["scope", "!x"], "not in the room !x"),
        (vec!["show", "!x"], "not in the room !x"),
        (vec!["sync", "!x"], "not in the room !x"),
        (vec!["sync", "!x", "--platform", "arm"], "a platform is written"),
        (vec!["mirror", "!x", "off"], "not in the room !x"),
    ];
    for (words, want) in rows {
        let error = node.fails(&words);
        assert!(error.contains(want), "{words:?}: {error}");
    }
    let broken = node.file("uv.lock", "version = 1\n[[package]]\nname = 7\n");
    let error = node.fails(&["create", "x", "--from", arg(&broken)]);
    assert!(error.contains("uv.lock") && error.contains("line 3"), "{error}");
}
