//! A room as the mirror of a project: nodes far from each other, the index cut off, pip as the client.

use super::synapse::{Limits, Synapse};
use super::world::{World, locked, row};
use crate::support::{Project, until};

#[test]
fn a_room_that_is_no_mirror_names_nothing() {
    let Some(world) = World::start() else { return };
    let synapse = Synapse::start(Limits::Raised);
    let (mut index, house) = (world.index(), world.homeserver(&synapse));
    let small = index.publish("small", &[], 10_000);
    index.publish("app", &["small"], 3 << 20);
    let [mut ada, bob] = ["ada", "bob"].map(|name| {
        let node = world.node(&index, "");
        node.login(&house, &synapse.account(name));
        node
    });
    let room = ada.node.json(&["create", "project"])["room"].as_str().expect("a room").to_owned();
    bob.node.json(&["join", &room]);
    until("both are in it", || ada.node.json(&["list"])["rooms"][0]["members"] == 2);

    let files = ada.pip(&["app"], "app");
    assert!(files.contains_key("app/data") && files.contains_key("small/data"), "{files:?}");
    index.close();
    let text = bob.try_pip(&["app"], "app").expect_err("nobody has it");
    assert!(text.contains("No matching distribution found for app"), "{text}");
    assert_eq!(bob.answers("room") + bob.answers("peer"), 0);
    index.unplug();
    let status = bob.get(&small.page()).status;
    assert!(matches!(status, 502 | 503), "{status}");
    ada.kill();
    ada.revive();
    assert_eq!(ada.pip(&["app"], "again"), files);
}

/// What pip is to install, to the byte.
const LOCKED: [&str; 3] = ["--require-hashes", "-r", "requirements.txt"];

#[test]
fn what_one_installed_the_others_install_without_the_index() {
    the_others_install_without_the_index(&[]);
}

#[test]
fn what_one_installed_the_others_install_without_the_index_in_an_encrypted_room() {
    the_others_install_without_the_index(&["--encrypted"]);
}

/// With a homeserver's usual limits: the index goes, the homeserver goes, nodes start again.
fn the_others_install_without_the_index(more: &[&str]) {
    let Some(world) = World::start() else { return };
    let mut synapse = Synapse::start(Limits::Default);
    let (mut index, house) = (world.index(), world.homeserver(&synapse));
    let small = index.publish("small", &[], 10_000);
    let app = index.publish("app", &["small"], 3 << 20);
    let late = index.publish("late", &[], 1 << 20);
    let other = index.publish("other", &[], 100);
    let [on_ada, on_bob, on_cy] = ["ada", "bob", "cy"].map(|name| synapse.account(name));
    let [mut ada, mut bob, cy] = [&on_ada, &on_bob, &on_cy].map(|account| {
        let node = world.node(&index, "");
        node.login(&house, account);
        node.write("requirements.txt", &locked(&[&small, &app]));
        node
    });
    let lock = ada.node.file("requirements.txt", &locked(&[&small, &app, &late]));
    let words = ["create", "project", "--from", lock.to_str().expect("UTF-8")];
    let made = ada.node.json(&[&words, more].concat());
    assert_eq!(made["packages"], 3, "{made}");
    let room = made["room"].as_str().expect("a room").to_owned();
    for node in [&bob, &cy] {
        node.node.json(&["join", &room, "--mirror", "lazy"]);
    }
    let files = ada.pip(&LOCKED, "app");
    assert!(files.contains_key("app/data") && files.contains_key("small/data"), "{files:?}");
    ada.pip(&["late", "other"], "late");
    for node in [&bob, &cy] {
        node.learns(&room, &on_ada, 3);
    }
    let encrypted = !more.is_empty();
    assert_eq!(bob.node.json(&["list"])["rooms"][0]["encrypted"], encrypted);
    // The homeserver reads of the packages what it may, and no more.
    let path = format!("client/v3/rooms/{}/messages?dir=b&limit=100", room.replace('!', "%21"));
    until("the news was sent", || {
        let log = synapse.ask("GET", &path, Some(&on_ada.token), None).to_string();
        let [sealed, plain] = ["\"m.room.encrypted\"", "\"org.dpm.packages\""].map(|kind| log.contains(kind));
        assert!(if encrypted { !plain } else { !sealed }, "{log}");
        sealed || plain
    });
    index.close();

    let page = bob.get(&small.page());
    assert_eq!((page.status, page.cache()), (200, "ROOM"), "{}", page.text());
    let file = bob.get(&small.file());
    assert_eq!((file.status, file.cache()), (200, "PEER"), "{}", file.text());
    assert!(file.body == small.bytes);
    assert_eq!(bob.pip(&LOCKED, "app"), files);
    assert_eq!(cy.pip(&LOCKED, "app"), files);
    assert_eq!(cy.answers("peer"), 2, "{:#}", cy.order(&["status"]));
    let status = bob.get(&other.page()).status;
    assert!(matches!(status, 502 | 503), "the room does not mirror it: {status}");

    // What one took from another it gives in turn.
    bob.learns(&room, &on_cy, 2);
    let shown = bob.show(&room);
    assert_eq!(shown["mirror"], "lazy");
    assert_eq!(shown["scope"], serde_json::json!({"packages": 3, "patterns": 0}));
    let row = row(&shown, &on_ada).expect("ada's");
    assert_eq!((&row["present"], &row["connected"]), (&true.into(), &true.into()), "{row:#}");
    assert_eq!((&row["packages"], &row["files"]), (&3.into(), &3.into()), "{row:#}");
    let missing = serde_json::json!({"files": 1, "bytes": late.bytes.len()});
    assert_eq!((&row["missing_here"], &shown["missing_here"]), (&missing, &missing), "{shown:#}");
    let bytes = [&small, &app, &late].map(|p| p.bytes.len()).iter().sum::<usize>();
    assert_eq!(shown["in_scope"], serde_json::json!({"files": 3, "bytes": bytes}));
    assert_eq!((&shown["refused"], &shown["disputes"]), (&serde_json::json!([]), &serde_json::json!([])));

    synapse.kill();
    // Gone altogether: nobody says any more that nothing listens there.
    index.unplug();
    let installed = cy.pip(&["late"], "late");
    assert_eq!(installed["late/data"], ada.pip(&["late"], "again")["late/data"]);
    // What was known survives a start, whoever is there then.
    for node in [&mut ada, &mut bob] {
        node.kill();
        node.revive();
    }
    assert_eq!(bob.pip(&["late"], "late"), installed);
    assert_eq!(ada.pip(&LOCKED, "again-locked"), files);
}

/// Encrypted, and one of them a mirror that nobody installs from: what it fetched by itself outlives who had it first.
#[test]
fn a_mirror_of_an_encrypted_room() {
    let Some(world) = World::start() else { return };
    let synapse = Synapse::start(Limits::Raised);
    let (mut index, house) = (world.index(), world.homeserver(&synapse));
    let small = index.publish("small", &[], 10_000);
    let app = index.publish("app", &["small"], 3 << 20);
    let [on_ada, on_flo, on_cy] = ["ada", "flo", "cy"].map(|name| synapse.account(name));
    let [mut ada, flo, cy] = [&on_ada, &on_flo, &on_cy].map(|account| {
        let node = world.node(&index, "[rooms]\npace = { per_second = 100.0, burst = 100 }");
        node.login(&house, account);
        node.write("requirements.txt", &locked(&[&small, &app]));
        node
    });
    let lock = ada.node.file("uv.lock", &uv_lock(&[&small, &app], &index.url()));
    let words = ["create", "project", "--encrypted", "--from", lock.to_str().expect("UTF-8")];
    let room = ada.node.json(&words)["room"].as_str().expect("a room").to_owned();
    flo.node.json(&["join", &room, "--mirror", "follow"]);
    cy.node.json(&["join", &room, "--mirror", "lazy"]);
    assert_eq!(cy.node.json(&["list"])["rooms"][0]["encrypted"], true);
    let files = ada.pip(&LOCKED, "app");
    cy.learns(&room, &on_ada, 2);
    // It has them, and says so.
    cy.learns(&room, &on_flo, 2);
    assert_eq!(flo.show(&room)["missing_here"]["files"], 0);
    assert_eq!(cy.show(&room)["missing_here"]["files"], 2, "it fetches nothing unasked");
    index.close();
    ada.kill();

    let done = cy.node.json(&["sync", &room]);
    let bytes = small.bytes.len() + app.bytes.len();
    assert_eq!(done["from_peers"], serde_json::json!({"files": 2, "bytes": bytes}), "{done:#}");
    assert_eq!((&done["missing"], &done["unknown"]), (&serde_json::json!([]), &serde_json::json!([])));
    let peer = row(&cy.show(&room), &on_flo).expect("flo's")["peer"].clone();
    assert_eq!(done["givers"][0]["peer"], peer, "{done:#}");
    let again = cy.node.json(&["sync", &room]);
    assert_eq!((&again["already_here"]["files"], &again["from_peers"]["files"]), (&2.into(), &0.into()));
    assert_eq!(cy.pip(&LOCKED, "app"), files);
    assert_eq!(flo.pip(&LOCKED, "app"), files);
}

/// What uv writes for these.
fn uv_lock(projects: &[&Project], index: &str) -> String {
    let one = |p: &&Project| {
        format!(
            "[[package]]\nname = \"{}\"\nversion = \"1.0\"\nsource = {{ registry = \"{index}\" }}\n\
             wheels = [{{ url = \"{index}{}\", hash = \"sha256:{}\", size = {} }}]\n",
            p.name,
            p.filename,
            p.sha256,
            p.bytes.len()
        )
    };
    ["version = 1\n".to_owned()].into_iter().chain(projects.iter().map(one)).collect()
}

/// Two homeservers. The one where the room was made dies: the members of the other go on, and tell who was cut off when
/// it is back.
#[test]
fn members_of_another_homeserver_go_on_without_the_first() {
    let Some(world) = World::start() else { return };
    let [mut a, b] = Synapse::pair(Limits::Default);
    let (mut index, houses) = (world.index(), [world.homeserver(&a), world.homeserver(&b)]);
    let early = index.publish("early", &[], 10_000);
    let app = index.publish("app", &["early"], 1 << 20);
    let [on_ada, on_bob, on_ben] = [a.account("ada"), b.account("bob"), b.account("ben")];
    let [ada, bob, ben] = [(&on_ada, 0), (&on_bob, 1), (&on_ben, 1)].map(|(account, house)| {
        let node = world.node(&index, "");
        node.login(&houses[house], account);
        node.write("requirements.txt", &locked(&[&early, &app]));
        node
    });
    let room = ada.node.json(&["create", "project", "--scope", "pkg:pypi/*"]);
    let room = room["room"].as_str().expect("a room").to_owned();
    for node in [&bob, &ben] {
        node.node.json(&["join", &room, "--via", &a.name]);
    }
    ada.pip(&["early"], "early");
    bob.learns(&room, &on_ada, 1);
    ben.learns(&room, &on_ada, 1);

    a.kill();
    until("ada hears of it", || !ada.node.is("online"));
    let files = bob.pip(&LOCKED, "app");
    ben.learns(&room, &on_bob, 2);
    index.close();
    assert_eq!(ben.pip(&LOCKED, "app"), files);
    assert!(ben.answers("room") > 0, "{:#}", ben.order(&["status"]));
    // Who is cut off from the room goes on with what was known, and no more.
    let text = ada.try_pip(&["app"], "app").expect_err("nobody has told");
    assert!(text.contains("No matching distribution found for app"), "{text}");
    assert_eq!(ada.pip(&["early"], "again")["early/data"], files["early/data"]);

    a.revive();
    ada.learns(&room, &on_bob, 2);
    assert_eq!(ada.pip(&LOCKED, "late"), files);
}
