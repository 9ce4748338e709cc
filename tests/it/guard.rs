//! Who is asked for a name, and who hears a password.

use dpm::base::Secret;

use crate::support::{Fault, File, Node, Project, Upstream};

/// A private index before a public one.
struct House {
    private: Upstream,
    public: Upstream,
    node: Node,
}

impl House {
    fn new(owns: &[&str]) -> Self {
        let (private, public) = (Upstream::start(), Upstream::start());
        let urls = [private.url("/simple/"), public.url("/simple/")];
        let node = Node::with(&[&urls[0], &urls[1]], |config, tuning| {
            config.pypi[0].private = true;
            config.pypi[0].owns = owns.iter().map(|&p| p.to_owned()).collect();
            // Every answer is asked for anew, so that every request tells who is asked.
            config.freshness.ttl = std::time::Duration::ZERO;
            config.freshness.negative = std::time::Duration::ZERO;
            config.freshness.stale_while_revalidate = std::time::Duration::ZERO;
            config.freshness.stale_if_error = std::time::Duration::ZERO;
            tuning.upstream.avoid_time = std::time::Duration::from_millis(1);
        });
        Self { private, public, node }
    }

    /// Asks for a page after its least time; gives its status and how often the public index was asked for it.
    fn ask(&self, name: &str) -> (u16, usize) {
        let before = self.public.hits(&format!("/simple/{name}/"));
        let url = self.node.url(&format!("/pypi/simple/{name}/"));
        let hits = || self.private.total() + self.public.total();
        let asked = hits();
        let mut status = 0;
        crate::support::until("somebody is asked", || {
            status = crate::support::get(&url).status;
            hits() > asked
        });
        (status, self.public.hits(&format!("/simple/{name}/")) - before)
    }
}

#[test]
fn a_name_of_the_private_index_is_its_own_for_ever() {
    let mut house = House::new(&[]);
    let ours = Project::new("demo", 10).publish(&house.private);
    let theirs = Project::new("demo", 20).publish(&house.public);
    assert_eq!(house.ask("demo"), (200, 0));
    assert!(house.node.get(&ours.page()).text().contains(&ours.sha256.hex()));
    house.private.remove(&ours.page_path());
    assert_eq!(house.ask("demo"), (404, 0), "it went away");
    assert_eq!(house.node.get(&theirs.file()).status, 404);
    house.private.broken(&ours.page_path(), Fault::Says("500 Broken"));
    assert_eq!(house.ask("demo"), (502, 0), "it fails");
    house.node.restart(|_, _| {});
    house.private.remove(&ours.page_path());
    assert_eq!(house.ask("demo"), (404, 0), "after a restart");
    assert_eq!(house.public.total(), 0);
    let ours = ours.publish(&house.private);
    assert_eq!(house.ask("demo"), (200, 0));
    assert!(house.node.get(&ours.page()).text().contains(&ours.sha256.hex()));
}

#[test]
fn the_public_index_is_asked_for_what_the_private_one_does_not_have() {
    let house = House::new(&[]);
    let theirs = Project::new("demo", 20).publish(&house.public);
    assert_eq!(house.ask("demo"), (200, 1));
    assert!(house.node.get(&theirs.file()).body == theirs.bytes);
    assert_eq!(house.private.hits(&theirs.file_path()), 0);
    // A failure is no "not there".
    house.private.broken("/simple/demo/", Fault::Says("500 Broken"));
    assert_eq!(house.ask("demo"), (502, 0));
    house.private.broken("/simple/demo/", Fault::Says("403 No"));
    assert_eq!(house.ask("demo"), (502, 0));
    house.private.broken("/simple/demo/", Fault::Says("503 Busy"));
    assert_eq!(house.ask("demo"), (503, 0));
    // As soon as the private index has the name it is its own.
    Project::new("demo", 10).publish(&house.private);
    assert_eq!(house.ask("demo"), (200, 0));
    house.private.remove("/simple/demo/");
    assert_eq!(house.ask("demo"), (404, 0));
    assert_eq!(house.ask("nobody"), (404, 1));
}

#[test]
fn owned_names_are_asked_of_nobody_else() {
    let house = House::new(&["corp-*", "secret"]);
    for name in ["corp-lib", "secret", "corp-demo"] {
        Project::new(name, 20).publish(&house.public);
        assert_eq!(house.ask(name), (404, 0));
        house.private.broken(&format!("/simple/{name}/"), Fault::Says("500 Broken"));
        assert_eq!(house.ask(name), (502, 0));
        Project::new(name, 10).publish(&house.private);
        assert_eq!(house.ask(name), (200, 0));
    }
    assert_eq!(house.public.total(), 0);
    Project::new("corporate", 20).publish(&house.public);
    assert_eq!(house.ask("corporate"), (200, 1));
}

#[test]
fn passwords_go_home_only() {
    let (upstream, files) = (Upstream::start(), Upstream::start());
    let url = upstream.url("/simple/").replace("http://", "http://me:p%40ss@");
    let node = Node::with(&[&url], |config, _| {
        assert_eq!(config.pypi[0].password.as_ref().map(Secret::reveal), Some("p@ss"));
        config.pypi[0].files = vec![files.url("/").parse().unwrap()];
    });
    // base64 of me:p@ss
    let basic = "Basic bWU6cEBzcw==";
    let here = Project::new("here", 1000).publish(&upstream);
    let there = Project::new("there", 2000);
    there.list(&upstream, &[there.entry(&files)]);
    files.serve(&there.file_path(), File::new(there.bytes.clone()));
    let moved = Project::new("moved", 3000).publish(&upstream);
    let location = format!("302 There\r\nlocation: {}", files.url(&moved.file_path()));
    upstream.broken(&moved.file_path(), Fault::Says(location.leak()));
    files.serve(&moved.file_path(), File::new(moved.bytes.clone()));

    for project in [&here, &there, &moved] {
        let answer = node.get(&project.file());
        assert_eq!(answer.status, 200, "{}", answer.text());
        node.settle();
        let stored = node.stored(&project.sha256).unwrap();
        assert!(stored.private, "what a password opened is not for everybody");
        assert!(!stored.url.contains("p@ss") && !stored.url.contains("p%40ss"));
        assert_eq!(upstream.asked(&project.page_path())[0].header("authorization"), basic);
    }
    assert_eq!(upstream.asked(&here.file_path())[0].header("authorization"), basic);
    for project in [&there, &moved] {
        assert_eq!(files.asked(&project.file_path())[0].header("authorization"), "");
    }
    // What clients send is theirs, and what they get has no password in it.
    let own = [("authorization", "Basic b3RoZXI6b3RoZXI="), ("cache-control", "no-cache")];
    let page = crate::support::request("GET", &node.url(&here.page()), &own);
    assert!(!page.text().contains("p@ss") && !page.text().contains("me:"));
    assert!(upstream.asked(&here.page_path()).iter().all(|a| a.header("authorization") == basic));
}

#[test]
fn a_public_artifact_is_public() {
    let upstream = Upstream::start();
    let node = Node::new(&upstream.url("/simple/"));
    let project = Project::new("demo", 1000).publish(&upstream);
    node.get(&project.file());
    node.settle();
    assert!(!node.stored(&project.sha256).unwrap().private);
}
