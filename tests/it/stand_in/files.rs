//! Bytes of files that only rooms told of: from the store, from whoever has them, or a clear word that nobody has.

use dpm::base::Sha256;
use dpm::catalogue::Entry;
use dpm::daemon::Order;

use super::files;
use crate::clients::process::{Home, counterpart};
use crate::support::member::{self, Member, listed};
use crate::support::{Fault, File, Node, Project, Upstream, installable, request, until};

const METADATA: &str = "Metadata-Version: 2.1\nName: demo\nVersion: 1.0\n";

/// Two nodes that know each other; the first has what an upstream gave that now fails.
struct Two {
    upstream: Upstream,
    nodes: Vec<Node>,
}

impl Two {
    fn new(projects: &[&Project]) -> Self {
        let upstream = Upstream::start();
        for project in projects {
            let mut entry = project.entry(&upstream);
            entry["core-metadata"] = true.into();
            project.list(&upstream, &[entry]);
            upstream.serve(&project.file_path(), File::new(project.bytes.clone()));
        }
        let nodes = Node::village(2, &upstream.url("/simple/"));
        for project in projects {
            assert_eq!(nodes[0].get(&project.file()).cache(), "MISS");
            nodes[0].settle();
            upstream.broken(&project.page_path(), Fault::Says("502 Broken"));
            upstream.broken(&project.file_path(), Fault::Says("502 Broken"));
        }
        member::join(&nodes[1], &["pkg:pypi/*"]);
        Self { upstream, nodes }
    }

    fn tells(&self, entries: Vec<Entry>) {
        Member::new("alice", 1).has(entries).tells(&self.nodes[1]);
    }
}

#[test]
fn from_a_node_that_has_them() {
    // One block, and many.
    let (small, large) = (Project::new("small", 30_000), Project::new("large", (3 << 20) + 5));
    let two = Two::new(&[&small, &large]);
    let asked = two.upstream.hits(&small.file_path()) + two.upstream.hits(&large.file_path());
    two.tells(vec![listed(&small), listed(&large)]);
    let node = &two.nodes[1];
    for project in [&small, &large] {
        let page = node.get(&project.page());
        assert_eq!((page.status, page.cache()), (200, "ROOM"), "{}", page.text());
        let told = request("HEAD", &node.url(&project.file()), &[]);
        assert_eq!((told.status, told.header("content-length")), (200, &*project.bytes.len().to_string()));
        let answer = node.get(&project.file());
        assert_eq!((answer.status, answer.cache()), (200, "PEER"), "{}", answer.text());
        assert!(answer.body == project.bytes);
        node.settle();
        assert_eq!(node.get(&project.file()).cache(), "HIT");
    }
    let now = two.upstream.hits(&small.file_path()) + two.upstream.hits(&large.file_path());
    assert_eq!(now, asked, "an upstream that is not known to have them is not asked");
}

#[test]
fn metadata_beside_a_wheel_or_in_it() {
    let wheel = crate::support::wheel("demo-1.0.dist-info", METADATA);
    let project = Project::of("demo", wheel);
    let path = format!("{}.metadata", project.file());
    // Of three nodes: it has the metadata as a file; it has the wheel; nothing says that there is any.
    for (stated, fetched) in [(true, true), (true, false), (false, false)] {
        let upstream = Upstream::start();
        let published = project.clone().publish(&upstream);
        let mut entry = published.entry(&upstream);
        entry["core-metadata"] = serde_json::json!({"sha256": Sha256::of(METADATA.as_bytes()).hex()});
        published.list(&upstream, &[entry]);
        upstream.serve(&format!("{}.metadata", published.file_path()), File::new(METADATA));
        let nodes = Node::village(2, &upstream.url("/simple/"));
        if fetched {
            assert_eq!(nodes[0].get(&path).cache(), "MISS");
        }
        nodes[0].get(&project.file());
        nodes[0].settle();
        for path in [published.page_path(), published.file_path()] {
            upstream.broken(&path, Fault::Says("502 Broken"));
        }
        member::join(&nodes[1], &["pkg:pypi/demo"]);
        let mut entry = listed(&project);
        entry.facts.core_metadata = stated.then(|| Sha256::of(METADATA.as_bytes()).digest());
        Member::new("alice", 1).has([entry]).tells(&nodes[1]);
        let page = nodes[1].get(&project.page());
        assert!(page.text().contains("core-metadata"), "{}", page.text());
        let answer = nodes[1].get(&path);
        assert_eq!((answer.status, answer.text().as_str()), (200, METADATA), "{stated} {fetched}");
        // It is the wheel's own, whoever has it as a file: of the wheel the members know the digest.
        nodes[1].settle();
        assert!(nodes[1].stored(&project.sha256).is_some());
        assert_eq!(nodes[1].get(&path).text(), METADATA);
    }
}

/// Metadata that a member says something else of than its wheel has.
#[test]
fn metadata_that_is_not_the_wheels() {
    let project = Project::of("demo", crate::support::wheel("demo-1.0.dist-info", METADATA));
    let two = Two::new(&[&project]);
    let mut entry = listed(&project);
    entry.facts.core_metadata = Some(Sha256::of(b"Requires-Dist: evil").digest());
    two.tells(vec![entry]);
    let answer = two.nodes[1].get(&format!("{}.metadata", project.file()));
    assert_eq!((answer.status, answer.text().as_str()), (200, METADATA), "what is in the wheel counts");
}

#[test]
fn that_nobody_has() {
    let project = Project::of("demo", crate::support::wheel("demo-1.0.dist-info", METADATA));
    let two = Two::new(&[&project]);
    two.tells(vec![listed(&project)]);
    two.nodes[0].order(&Order::Purge(format!("sha256:{}", project.sha256)));
    let node = &two.nodes[1];
    for path in [project.file(), format!("{}.metadata", project.file())] {
        let answer = node.get(&path);
        assert_eq!(answer.status, 504, "{}", answer.text());
        let text = answer.text();
        assert!(text.contains(&project.filename) && text.contains("start a node that has it"), "{text}");
    }
    // With its upstream back it is had again, though it was asked for in vain.
    let project = project.publish(&two.upstream);
    until("it is asked for again", || node.get(&project.file()).status == 200);
    assert_eq!(node.get(&project.file()).body, project.bytes);
}

/// A node that has what a client asks for is not asked for it by a link that nobody vouches for.
#[test]
fn that_the_room_does_not_tell_of() {
    let project = Project::new("demo", 30_000);
    let two = Two::new(&[&project]);
    two.tells(vec![member::entry("pkg:pypi/demo@1.0", &project.filename, b"other bytes")]);
    let answer = two.nodes[1].get(&project.file());
    assert_eq!(answer.status, 504, "{}", answer.text());
    assert!(answer.text().contains("does not list"), "{}", answer.text());
    assert!(two.nodes[1].stored(&project.sha256).is_none());
}

/// pip and uv, from a lock with hashes, from a node whose index is gone.
#[test]
fn installed_with_pip_and_uv() {
    let needs = Project::of("needs", installable("needs", &["demo"], 100));
    let demo = Project::of("demo", installable("demo", &[], 2 << 20));
    let two = Two::new(&[&needs, &demo]);
    two.tells(vec![listed(&needs), listed(&demo)]);
    let home = Home::bare();
    let lock: String =
        [&needs, &demo].iter().map(|p| format!("{}==1.0 --hash=sha256:{}\n", p.name, p.sha256)).collect();
    home.write("lock.txt", &lock);
    let index = two.nodes[1].url("/pypi/simple/");
    let uv = || {
        let mut uv = home.client(counterpart("uv", "uv"));
        uv.args(["pip", "install", "--no-cache", "--link-mode", "copy", "--default-index", &index]);
        uv.arg("--python").arg(counterpart("pip", "python"));
        uv
    };
    let pip = || {
        let mut pip = home.client(counterpart("pip", "pip"));
        pip.args(["install", "--no-cache-dir", "--no-compile", "--quiet", "--index-url", &index]);
        pip
    };
    let locked = ["--require-hashes", "-r", "lock.txt"];
    home.run(uv().args(locked).args(["--target", "uv"]));
    home.run(pip().args(locked).args(["--target", "pip"]));
    // And by name: what it needs is found in its metadata.
    home.run(uv().args(["needs", "--target", "uv-by-name"]));
    home.run(pip().args(["needs", "--target", "pip-by-name"]));
    for folder in ["uv", "pip", "uv-by-name", "pip-by-name"] {
        let data = std::fs::read(home.path(&format!("{folder}/demo/data"))).expect("it is installed");
        assert_eq!(data.len(), 2 << 20, "{folder}");
    }
    assert_eq!(
        files(&request("GET", &format!("{index}demo/"), &[("accept", crate::support::JSON)])).len(),
        1
    );
    // A lock of other bytes is refused by its client.
    home.write("lock.txt", &lock.replace(&demo.sha256.hex(), &Sha256::of(b"other").hex()));
    for mut client in [uv(), pip()] {
        let (status, text) = home.try_run(client.args(locked).args(["--target", "refused"]));
        assert!(!status.success(), "{text}");
    }

    // Of a page that is refused pip tells why to who wants to know.
    Member::new("bob", 2)
        .has([member::entry("pkg:pypi/demo@1.0", &demo.filename, b"evil")])
        .tells(&two.nodes[1]);
    let (status, text) = home.try_run(pip().args(["-vvv", "--retries", "0", "demo", "--target", "disputed"]));
    assert!(!status.success() && text.contains("contradict"), "{text}");
}
