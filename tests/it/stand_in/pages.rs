//! Pages: when a room is asked, and what it may say.

use dpm::base::Sha256;
use dpm::catalogue::Entry;
use dpm::members::Mode;
use dpm::rt::UnixMillis;
use serde_json::json;

use super::{House, REST, files};
use crate::clients::process::free_port;
use crate::support::member::{self, Member, ROOM, entry, listed};
use crate::support::{Fault, LIMIT, Project, get, request, until};

const DAY: u64 = 24 * 3600;

/// `demo` with every fact that a page can state.
fn demo() -> (Project, Entry) {
    let project = Project::new("demo", 1000);
    let mut entry = listed(&project);
    entry.facts.requires_python = Some(">=3.6, <4".into());
    entry.facts.upload_time = Some("2023-01-02T03:04:05.678901Z".into());
    entry.facts.yanked = Some("too old".into());
    entry.facts.core_metadata = Some(Sha256::of(b"metadata").digest());
    (project, entry)
}

#[test]
fn an_upstream_that_fails_is_stood_in_for() {
    let faults = [
        Fault::Says("500 Broken"),
        Fault::Says("503 Busy"),
        Fault::Says("200 Empty"),
        Fault::Silence,
        Fault::Cut(1),
    ];
    for fault in faults {
        let house = House::new();
        let (project, entry) = demo();
        house.upstream.broken(&project.page_path(), fault);
        assert!(house.node.get(&project.page()).status >= 500, "{fault:?}: nobody has said anything");
        Member::new("alice", 1).has([entry]).tells(&house.node);
        house.pass(70);
        let page = house.page(&project, 200, "ROOM");
        assert_eq!(page.header("cache-control"), "max-age=0");
        assert_eq!(page.header("age"), "70", "as old as alice's word");
        assert!(page.header("warning").contains("members of a room"), "{}", page.header("warning"));
        let want = json!({
            "meta": {"api-version": "1.1"}, "name": "demo", "versions": ["1.0"],
            "files": [{
                "filename": project.filename, "hashes": {"sha256": project.sha256.hex()}, "size": 1000,
                "url": format!("../../files/demo/sha256-{}/{}", project.sha256, project.filename),
                "requires-python": ">=3.6, <4", "upload-time": "2023-01-02T03:04:05.678901Z", "yanked": "too old",
                "core-metadata": true, "dist-info-metadata": true,
            }],
        });
        assert_eq!(page.json(), want, "{fault:?}");
        let html = request("GET", &house.node.url(&project.page()), &[("accept", "text/html")]);
        assert_eq!((html.status, html.cache()), (200, "ROOM"));
        for part in [&*project.sha256.hex(), "data-requires-python=\"&gt;=3.6, &lt;4\"", "data-yanked"] {
            assert!(html.text().contains(part), "{part}: {}", html.text());
        }
        // What it says is not its upstream's word: nothing of it is kept.
        assert_eq!(house.node.daemon().rooms().store.page_keys("pypi", 9).unwrap().len(), 0);
    }
}

#[test]
fn an_upstream_that_is_not_there() {
    let house = House::with(|config, _| {
        let url = format!("http://127.0.0.1:{}/simple/", free_port());
        config.pypi[0].url = url.parse().unwrap();
    });
    let (project, entry) = demo();
    assert_eq!(house.node.get(&project.page()).status, 502);
    Member::new("alice", 1).has([entry]).tells(&house.node);
    house.page(&project, 200, "ROOM");
}

/// It is not waited for as long as it would take to be sure.
#[test]
fn an_upstream_that_hangs() {
    let house = House::with(|_, tuning| {
        (tuning.upstream.answer_time, tuning.upstream.stall_time) = (LIMIT, LIMIT);
    });
    let (project, entry) = demo();
    house.upstream.broken(&project.page_path(), Fault::Silence);
    Member::new("alice", 1).has([entry]).tells(&house.node);
    house.page(&project, 200, "ROOM");
    // The next one does not wait at all: it comes from what failed a moment ago.
    let asked = house.upstream.hits(&project.page_path());
    house.page(&project, 200, "ROOM");
    assert_eq!(house.upstream.hits(&project.page_path()), asked);
}

#[test]
fn one_that_is_back_is_asked_again() {
    let house = House::new();
    let (project, entry) = demo();
    house.upstream.broken(&project.page_path(), Fault::Says("500 Broken"));
    Member::new("alice", 1).has([entry]).tells(&house.node);
    house.page(&project, 200, "ROOM");
    let asked = house.upstream.hits(&project.page_path());
    let other = Project::of("demo", b"newer".to_vec());
    let project = Project { filename: "demo-2.0.zip".into(), ..other }.publish(&house.upstream);
    house.pass(REST - 2);
    house.page(&project, 200, "ROOM");
    assert_eq!(house.upstream.hits(&project.page_path()), asked);
    house.pass(2);
    let page = house.page(&project, 200, "MISS");
    assert_eq!(files(&page), ["demo-2.0.zip"]);
    house.page(&project, 200, "HIT");

    // Who asks for news has it asked at once.
    let (other, entry) = (Project::new("other", 10), listed(&Project::new("other", 10)));
    house.upstream.broken(&other.page_path(), Fault::Says("500 Broken"));
    Member::new("bob", 2).has([entry]).tells(&house.node);
    house.page(&other, 200, "ROOM");
    let other = other.publish(&house.upstream);
    let news = request("GET", &house.node.url(&other.page()), &[("cache-control", "no-cache")]);
    assert_eq!(news.cache(), "MISS");
}

#[test]
fn an_answer_is_an_answer() {
    let (project, entry) = demo();
    let told = |house: &House| Member::new("alice", 1).has([entry.clone()]).tells(&house.node);
    // "No such project", as long as that is good for.
    let house = House::new();
    told(&house);
    house.page(&project, 404, "NONE");
    house.upstream.broken(&project.page_path(), Fault::Says("500 Broken"));
    house.pass(59);
    house.page(&project, 404, "NONE");
    assert_eq!(house.node.get(&project.file()).status, 404);
    house.pass(1);
    house.page(&project, 200, "ROOM");
    house.upstream.remove(&project.page_path());
    house.pass(REST);
    house.page(&project, 404, "NONE");

    // "Not for you": some indexes hold projects back so.
    for fault in ["401 No", "403 No", "451 No"] {
        let house = House::new();
        told(&house);
        house.upstream.broken(&project.page_path(), Fault::Says(fault));
        assert_eq!(house.node.get(&project.page()).status, 502, "{fault}");
    }
}

#[test]
fn a_stale_page_is_completed_and_a_good_one_is_not() {
    let house = House::new();
    let old = Project::new("demo", 1000).publish(&house.upstream);
    let good = house.page(&old, 200, "MISS");
    let mut newer = entry("pkg:pypi/demo@2.0", "demo-2.0.tar.gz", b"newer");
    newer.facts.requires_python = Some(">=3.9".into());
    // What the index says of a file stays, whatever a room says of it.
    let evil = entry("pkg:pypi/demo@1.0", &old.filename, b"evil");
    Member::new("alice", 1).has([newer.clone(), evil]).tells(&house.node);
    assert_eq!(house.page(&old, 200, "HIT").body, good.body);
    house.pass(310);
    house.upstream.broken(&old.page_path(), Fault::Says("500 Broken"));
    assert_eq!(house.page(&old, 200, "STALE").body, good.body, "its upstream is asked meanwhile");
    until("it has failed", || house.node.get(&old.page()).cache() == "ROOM");

    house.pass(600);
    let page = house.page(&old, 200, "ROOM");
    assert_eq!(page.header("age"), "910", "as old as the older of the two");
    let all = page.json();
    assert_eq!(files(&page), [&old.filename, "demo-2.0.tar.gz"]);
    assert_eq!(all["files"][0], good.json()["files"][0]);
    assert_eq!(all["files"][1]["requires-python"], ">=3.9");
    // The file of the index is still its own.
    assert_eq!(house.node.get(&old.file()).body, old.bytes);
    let new = old
        .page()
        .replace("simple/demo/", &format!("files/demo/sha256-{}/demo-2.0.tar.gz", Sha256::of(b"newer")));
    assert_eq!(house.node.get(&new).status, 504, "nobody has it");

    // Nothing to add: it is stale, as ever.
    let other = Project::new("other", 10).publish(&house.upstream);
    house.page(&other, 200, "MISS");
    house.pass(600);
    house.upstream.broken(&other.page_path(), Fault::Says("500 Broken"));
    Member::new("bob", 2).has([listed(&other)]).tells(&house.node);
    house.page(&other, 200, "STALE");

    house.pass(REST);
    let _back = Project::new("demo", 1000).publish(&house.upstream);
    house.pass(REST);
    assert_eq!(house.page(&old, 200, "MISS").body, good.body);
}

#[test]
fn what_an_index_holds_back_no_room_gives() {
    let house = House::new();
    let project = Project::new("demo", 1000);
    let page = json!({
        "meta": {"api-version": "1.4"}, "name": "demo", "files": [], "versions": [],
        "project-status": {"status": "quarantined"},
    });
    house.upstream.serve(&project.page_path(), crate::support::File::json(page.to_string()));
    house.page(&project, 200, "MISS");
    Member::new("alice", 1).has([listed(&project)]).tells(&house.node);
    house.upstream.broken(&project.page_path(), Fault::Says("500 Broken"));
    house.pass(600);
    assert!(files(&house.page(&project, 200, "STALE")).is_empty());
}

#[test]
fn names_of_private_indexes() {
    let ours = Project::new("corp-app", 10);
    let told = |house: &House| Member::new("alice", 1).has([listed(&ours)]).tells(&house.node);
    let fails = |house: &House| {
        told(house);
        house.upstream.broken(&ours.page_path(), Fault::Says("500 Broken"));
        house.pass(600);
        assert_eq!(house.node.get(&ours.page()).status, 502);
        assert_eq!(house.node.get(&ours.file()).status, 502);
    };
    // It could be one's.
    fails(&House::with(|config, _| config.pypi[0].private = true));
    // It is one's, by its configuration.
    fails(&House::with(|config, _| {
        (config.pypi[0].private, config.pypi[0].owns) = (true, vec!["corp-*".into()]);
        // What it gives to peers it still names itself.
        config.pypi[0].peers = true;
    }));
    // There is a login for it.
    fails(&House::with(|config, _| {
        config.pypi[0].username = Some("u".into());
        config.pypi[0].password = Some(dpm::base::Secret::new("p"));
    }));
    // It was one's when it was last seen: stale is what it stays, without anybody's additions.
    let house = House::with(|config, _| config.pypi[0].private = true);
    let stored = ours.clone().publish(&house.upstream);
    house.page(&stored, 200, "MISS");
    Member::new("alice", 1)
        .has([entry("pkg:pypi/corp-app@2.0", "corp-app-2.0.zip", b"x")])
        .tells(&house.node);
    house.upstream.broken(&ours.page_path(), Fault::Says("500 Broken"));
    house.pass(600);
    house.page(&stored, 200, "STALE");
    house.pass(31 * DAY);
    assert_eq!(house.node.get(&stored.page()).status, 502);
}

/// Behind a private index: what the public one was once known to have is its own, any other name could be either's.
#[test]
fn names_that_could_be_of_a_private_index() {
    let house = House::with(|config, _| {
        let mut private = config.pypi[0].clone();
        private.url = private.url.join("/corp/").unwrap();
        (private.name, private.private) = ("corp".into(), true);
        config.pypi.insert(0, private);
    });
    let (public, other) = (Project::new("demo", 10).publish(&house.upstream), Project::new("other", 10));
    house.page(&public, 200, "MISS");
    let more = entry("pkg:pypi/demo@2.0", "demo-2.0.zip", b"x");
    Member::new("alice", 1).has([more, listed(&other)]).tells(&house.node);
    for path in [public.page_path(), "/corp/demo/".into(), other.page_path(), "/corp/other/".into()] {
        house.upstream.broken(&path, Fault::Says("500 Broken"));
    }
    house.pass(600);
    house.page(&public, 200, "ROOM");
    house.page(&other, 502, "NONE");
}

#[test]
fn whose_word_counts() {
    let house = House::new();
    let (project, entry) = demo();
    house.upstream.broken(&project.page_path(), Fault::Says("500 Broken"));
    let members = &house.node.daemon().rooms().members;
    let mut alice = Member::new("alice", 1).has([entry.clone()]);
    alice.tells(&house.node);
    house.page(&project, 200, "ROOM");
    // A room that is not mirrored.
    assert!(members.set_mode(ROOM, Mode::Off));
    house.page(&project, 502, "NONE");
    members.set_mode(ROOM, Mode::Follow);
    house.page(&project, 200, "ROOM");
    // One who has left.
    members.member(ROOM, &alice.user, false);
    house.page(&project, 502, "NONE");
    members.member(ROOM, &alice.user, true);
    house.page(&project, 200, "ROOM");
    // A word that is too old.
    house.pass(30 * DAY + 1);
    house.page(&project, 502, "NONE");
    alice.tells_as_of(&house.node, UnixMillis(house.node.now().0 - 29 * DAY * 1000));
    assert_eq!(house.page(&project, 200, "ROOM").header("age"), (29 * DAY).to_string());
    members.left(ROOM);
    house.page(&project, 502, "NONE");
    // What the room does not mirror.
    member::join(&house.node, &["pkg:pypi/other"]);
    Member::new("carol", 3).has([entry]).tells(&house.node);
    house.page(&project, 502, "NONE");
}

#[test]
fn members_who_contradict_each_other() {
    let house = House::new();
    let project = Project::new("demo", 1000);
    house.upstream.broken(&project.page_path(), Fault::Says("500 Broken"));
    let agreed = entry("pkg:pypi/demo@0.9", "demo-0.9.zip", b"agreed");
    let (mut alice, mut bob) = (
        Member::new("alice", 1).has([listed(&project), agreed.clone()]),
        Member::new("bob", 2).has([entry("pkg:pypi/demo@1.0", &project.filename, b"evil"), agreed.clone()]),
    );
    alice.tells(&house.node);
    assert_eq!(files(&house.page(&project, 200, "ROOM")).len(), 2);
    bob.tells(&house.node);
    assert_eq!(files(&house.page(&project, 200, "ROOM")), ["demo-0.9.zip"]);
    for digest in [project.sha256, Sha256::of(b"evil")] {
        let path = project.file().replace(&project.sha256.hex(), &digest.hex());
        for path in [path.clone(), format!("{path}.metadata")] {
            let answer = house.node.get(&path);
            assert_eq!(answer.status, 409, "{}", answer.text());
            let text = answer.text();
            for part in [
                &alice.user,
                &bob.user,
                &alice.peer().to_string(),
                &bob.peer().to_string(),
                &project.filename,
            ] {
                assert!(text.contains(part), "{part}: {text}");
            }
            assert!(
                text.contains(&project.sha256.hex()) && text.contains(&Sha256::of(b"evil").hex()),
                "{text}"
            );
        }
    }
    // The one that they agree on is only not to be had.
    let other = format!("/pypi/files/demo/sha256-{}/demo-0.9.zip", Sha256::of(b"agreed"));
    assert_eq!(house.node.get(&other).status, 504);

    // Bob takes it back: his key, his word.
    let mut bob = Member::new("bob", 2).has([agreed.clone()]);
    bob.tells_again(&house.node, 7);
    assert_eq!(files(&house.page(&project, 200, "ROOM")).len(), 2);

    // Nothing but a disagreement is no empty page, from which somebody would learn that there is no such thing.
    let only = Project::new("only", 10);
    house.upstream.broken(&only.page_path(), Fault::Says("500 Broken"));
    Member::new("carol", 3).has([listed(&only)]).tells(&house.node);
    Member::new("dave", 4).has([entry("pkg:pypi/only@1.0", &only.filename, b"evil")]).tells(&house.node);
    let answer = get(&house.node.url(&only.page()));
    assert_eq!(answer.status, 409, "{}", answer.text());
    assert!(answer.text().contains("@carol:example.org") && answer.text().contains("@dave:example.org"));

    // The index knows better than both.
    let published = only.publish(&house.upstream);
    house.pass(REST);
    house.page(&published, 200, "MISS");
    house.upstream.broken(&published.page_path(), Fault::Says("500 Broken"));
    house.pass(600);
    house.page(&published, 200, "STALE");
    assert_eq!(house.node.get(&published.file()).body, published.bytes);
}

/// One who got a file from a neighbour knows less of it than one who saw its index.
#[test]
fn who_knows_more_says_more() {
    let house = House::new();
    let (project, full) = demo();
    house.upstream.broken(&project.page_path(), Fault::Says("500 Broken"));
    let mut wrong = full.clone();
    wrong.facts.core_metadata = Some(Sha256::of(b"other metadata").digest());
    Member::new("alice", 1).has([listed(&project)]).tells(&house.node);
    assert_eq!(house.page(&project, 200, "ROOM").json()["files"][0]["yanked"], false);
    Member::new("bob", 2).has([full]).tells(&house.node);
    let file = &house.page(&project, 200, "ROOM").json()["files"][0];
    assert_eq!((&file["yanked"], &file["requires-python"]), (&json!("too old"), &json!(">=3.6, <4")));
    assert_eq!(file["core-metadata"], true, "from the wheel, whatever they say of it");
    Member::new("carol", 3).has([wrong]).tells(&house.node);
    let file = &house.page(&project, 200, "ROOM").json()["files"][0];
    assert_eq!((&file["core-metadata"], &file["yanked"]), (&json!(true), &json!("too old")));
}

/// Entries within the room's rules that are none of the project's business.
#[test]
fn hostile_entries() {
    let house = House::new();
    let project = Project::new("demo", 1000);
    house.upstream.broken(&project.page_path(), Fault::Says("500 Broken"));
    let mut odd = entry("pkg:pypi/demo@3.0", "demo-3.0.zip", b"3");
    odd.facts.upload_time = Some("yesterday".into());
    odd.facts.yanked = Some("</a><script>".into());
    odd.facts.requires_python = Some("\"><script>".into());
    Member::new("mallory", 9)
        .has([
            // Another project's file, another version's, none, parts of other files.
            entry("pkg:pypi/demo@1.0", "other-1.0.zip", b"a"),
            entry("pkg:pypi/demo@1.0", "demo-2.0.zip", b"b"),
            entry("pkg:pypi/demo@1.0", "demo", b"c"),
            entry("pkg:pypi/demo", "demo-1.0.zip", b"d"),
            entry("pkg:pypi/demo@1.0", "demo-1.0.zip.metadata", b"e"),
            // The same file as two versions, with different bytes.
            entry("pkg:pypi/demo@V4.0", "demo-4.0.zip", b"f"),
            entry("pkg:pypi/demo@4.0", "demo-4.0.zip", b"g"),
            odd,
        ])
        .tells(&house.node);
    let page = house.page(&project, 200, "ROOM");
    assert_eq!(files(&page), ["demo-3.0.zip"]);
    assert_eq!(page.json()["files"][0].get("upload-time"), None, "{}", page.text());
    let html = house.node.get(&project.page());
    assert!(!html.text().contains("<script"), "{}", html.text());
    let disputed = format!("/pypi/files/demo/sha256-{}/demo-4.0.zip", Sha256::of(b"g"));
    assert_eq!(house.node.get(&disputed).status, 409);
}

#[test]
fn offline() {
    let mut house = House::new();
    let stored = Project::new("demo", 1000).publish(&house.upstream);
    house.page(&stored, 200, "MISS");
    house.node.restart(|config, _| config.offline = true);
    let asked = house.upstream.total();
    let (other, more) = (Project::new("other", 10), entry("pkg:pypi/demo@2.0", "demo-2.0.zip", b"2"));
    assert_eq!(house.node.get(&other.page()).status, 504);
    Member::new("alice", 1).has([listed(&other), more]).tells(&house.node);
    house.page(&stored, 200, "HIT");
    house.page(&other, 200, "ROOM");
    house.pass(600);
    assert_eq!(files(&house.page(&stored, 200, "ROOM")), [&stored.filename, "demo-2.0.zip"]);
    let answer = house.node.get(&other.file());
    assert_eq!(answer.status, 504);
    assert!(answer.text().contains("no member that has it can be reached"), "{}", answer.text());
    assert_eq!(house.upstream.total(), asked);
}
