//! The command line as people and scripts meet it: real processes, real signals.

use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Output;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::support::{Listing, Process, Upstream, attempt, get, process, until};
use process::{asked, run, said, text};

/// An order for the node on `data`, and what it says in text and as JSON.
fn order(data: &Path, words: &[&str]) -> (String, Value) {
    let mut words = words.to_vec();
    words.extend(["--data", data.to_str().unwrap()]);
    (said(&words), asked(&words))
}

/// Fails the test unless `dpm` failed with `code` and said this.
fn refused(output: &Output, code: i32, parts: &[&str]) {
    let said = text(&output.stderr);
    assert_eq!(output.status.code(), Some(code), "{said}");
    assert!(said.starts_with("dpm: "), "{said}");
    for part in parts {
        assert!(said.contains(part), "no {part:?} in {said}");
    }
}

fn fetch(node: &Process, project: &Listing) {
    assert_eq!(get(&node.url(&project.page())).status, 200);
    assert!(get(&node.url(&project.file())).body == project.content);
    // The commit comes after the last byte.
    until("it is stored", || node.metric("dpm_flights") == 0);
}

#[test]
fn orders_are_the_same_for_a_running_node_and_an_idle_store() {
    let upstream = Upstream::start();
    let projects: Vec<_> = (0..4).map(|n| Listing::publish(&upstream, n, 1_500_000)).collect();
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().join("data");
    let node = Process::start(&data, &upstream.url("/simple/"), "");
    projects.iter().for_each(|p| fetch(&node, p));
    let socket = data.join("control.sock");
    assert_eq!(socket.metadata().unwrap().permissions().mode() & 0o777, 0o600, "orders are its owner's");
    let (url, mut node) = (node.url.clone(), Some(node));

    for (running, project, other) in [(true, &projects[0], &projects[1]), (false, &projects[2], &projects[3])]
    {
        if !running {
            assert!(node.take().unwrap().stop() < Duration::from_secs(8));
            assert!(!socket.exists());
        }
        let left = if running { 4 } else { 2 };
        let (text, status) = order(&data, &["status"]);
        assert_eq!(status["running"], running);
        assert_eq!(status["store"]["artifacts"], left);
        assert_eq!(status["store"]["artifact_bytes"], left * 1_500_000);
        assert_eq!(status["data"], data.to_str().unwrap());
        assert!(text.contains(&format!("{left} artifacts, ")), "{text}");
        if running {
            assert_eq!(status["pypi"][0]["url"], upstream.url("/simple/"));
            assert_eq!(status["answers"]["miss"]["answers"], 8);
            assert_eq!(status["upstream_bytes"], 6_000_000);
            assert!(text.contains("8 answers") && text.contains("fetched  6.0 MB from upstreams"), "{text}");
        }

        let (_, by_digest) = order(&data, &["why", &project.digest()]);
        assert_eq!(by_digest["stored"], true);
        let cid = by_digest["cid"].as_str().unwrap().to_owned();
        let link = format!("{url}{}", project.file());
        for what in [link.as_str(), &project.file(), &project.digest(), &cid] {
            let (text, why) = order(&data, &["why", what]);
            assert_eq!(
                (&why["digest"], &why["size"], &why["filename"], &why["upstream"]),
                (&json!(project.digest()), &json!(1_500_000), &json!(project.filename()), &json!("pypi")),
                "{what}"
            );
            assert_eq!(why["url"], upstream.url(&project.origin()), "{what}");
            for part in [project.digest(), cid.clone(), upstream.url(&project.origin())] {
                assert!(text.contains(&part), "no {part} in {text}");
            }
        }
        for what in [project.name.clone(), format!("pkg:pypi/{}@1.0", project.name), project.page()] {
            let (text, why) = order(&data, &["why", &what]);
            assert_eq!(
                (&why["kind"], &why["stored"], &why["found"]),
                (&json!("page"), &json!(true), &json!(true)),
                "{what}: {why}"
            );
            assert_eq!(why["url"], upstream.url(&format!("/simple/{}/", project.name)), "{what}");
            assert!(text.contains("fresh"), "{text}");
        }
        assert_eq!(order(&data, &["why", "never-heard-of"]).1["stored"], false);
        let nonsense = run(&["why", "no name at all!", "--data", data.to_str().unwrap()]);
        refused(&nonsense, 2, &["is no dpm URL, digest, CID, image or project name"]);

        let (text, report) = order(&data, &["verify"]);
        assert_eq!((&report["artifacts"], &report["damaged"]), (&json!(left), &json!([])));
        assert!(text.contains("read and hashed"), "{text}");

        let (text, pinned) = order(&data, &["pin", &other.name]);
        assert_eq!((&pinned["artifacts"], &pinned["pinned"]), (&json!(1), &json!(true)));
        assert_eq!(text, "1 stored artifacts are kept whatever else has to go\n");
        assert_eq!(order(&data, &["why", &other.digest()]).1["pinned"], true);
        let (_, unpinned) = order(&data, &["pin", &other.file(), "--undo"]);
        assert_eq!((&unpinned["artifacts"], &unpinned["pinned"]), (&json!(1), &json!(false)));
        assert_eq!(order(&data, &["why", &other.digest()]).1["pinned"], false);

        let (text, freed) = order(&data, &["gc"]);
        assert_eq!((&freed["artifacts_evicted"], &freed["orphans_removed"]), (&json!(0), &json!(0)));
        assert!(text.starts_with("evicted 0 artifacts"), "{text}");

        let purged = asked(&["purge", &project.digest(), "--data", data.to_str().unwrap()]);
        assert_eq!(
            (&purged["artifacts"], &purged["bytes"], &purged["pages"]),
            (&json!(1), &json!(1_500_000), &json!(0))
        );
        let text = said(&["purge", &other.name, "--data", data.to_str().unwrap()]);
        assert_eq!(text, "forgot 1 pages and 1 artifacts, 1.5 MB\n");
        for what in [&project.digest(), &other.digest(), &other.name] {
            assert_eq!(order(&data, &["why", what]).1["stored"], false, "{what}");
        }
    }
    let node = Process::start(&data, &upstream.url("/simple/"), "");
    for project in &projects {
        assert_eq!(get(&node.url(&project.file())).header("x-cache"), "MISS", "purged means fetched again");
    }
    assert_eq!(upstream.hits(&projects[0].origin()), 2);
}

#[test]
fn verify_names_what_is_damaged() {
    let upstream = Upstream::start();
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().join("data");
    let projects = [Listing::publish(&upstream, 1, 100_000), Listing::publish(&upstream, 2, 100_000)];
    let mut node = Some(Process::start(&data, &upstream.url("/simple/"), ""));
    projects.iter().for_each(|p| fetch(node.as_ref().unwrap(), p));
    for (running, project) in [true, false].into_iter().zip(&projects) {
        if !running {
            node.take().unwrap().stop();
        }
        let hex = project.sha256.hex();
        std::fs::write(data.join("objects").join(&hex[..2]).join(&hex), vec![0; 100_000]).unwrap();
        let output = run(&["verify", "--json", "--data", data.to_str().unwrap()]);
        assert_eq!(output.status.code(), Some(1), "scripts see it");
        let report: Value = serde_json::from_slice(&output.stdout).unwrap();
        assert_eq!(report["damaged"][0]["digest"], project.digest());
        assert_eq!(report["damaged"][0]["filename"], project.filename());
        assert!(
            said(&["verify", "--data", data.to_str().unwrap()]).contains("artifacts"),
            "once mended, all is well"
        );
    }
}

#[test]
fn every_command_explains_itself() {
    let cases: [(&[&str], &[&str]); 17] = [
        (
            &[],
            &[
                "serve",
                "init",
                "config",
                "setup",
                "status",
                "why",
                "verify",
                "purge",
                "prefetch",
                "gc",
                "where to start",
            ],
        ),
        (
            &["serve"],
            &[
                "oci=URL",
                "--data",
                "--listen",
                "--offline",
                "learns its upstream",
                "/pypi/simple/",
                "REGISTRY/IMAGE",
            ],
        ),
        (&["init"], &["--force", "dpm.toml"]),
        (&["config", "check"], &["--config", "--json", "Exits with 1"]),
        (&["setup"], &["--undo", "--dry-run", "--file", "pip, uv, docker, podman or containerd"]),
        (&["status"], &["--data", "--json"]),
        (&["why"], &["URL", "digest", "CID", "image", "project"]),
        (&["verify"], &["hash", "damaged", "Exits with 1"]),
        (&["purge"], &["Forget", "digest"]),
        (
            &["prefetch"],
            &["--platform", "--all-platforms", "--with-signatures", "--json", "docker.io/library/"],
        ),
        (&["gc"], &["Evict"]),
        (
            &["room"],
            &["login", "create NAME --from uv.lock", "dpm room join", "dpm room sync", "show", "scope"],
        ),
        (&["room", "create"], &["--from", "--scope", "--mirror", "uv.lock", "pkg:pypi/corp-*", "--invite"]),
        (&["room", "join"], &["--mirror", "lazy", "follow", "off", "--via"]),
        (&["room", "scope"], &["--from", "--add", "--replace", "--json"]),
        (&["room", "show"], &["--missing", "--json", "disagree"]),
        (&["room", "sync"], &["--platform", "--all-platforms", "Exits with 1"]),
    ];
    for (command, parts) in cases {
        let mut words = command.to_vec();
        words.push("--help");
        // Lines are wrapped.
        let help = said(&words).split_whitespace().collect::<Vec<_>>().join(" ");
        assert!(help.starts_with("Usage: dpm"), "{help}");
        for part in parts {
            assert!(help.contains(part), "dpm {command:?} --help has no {part:?}: {help}");
        }
    }
    assert_eq!(said(&["--version"]), format!("dpm {}\n", env!("CARGO_PKG_VERSION")));
    assert!(said::<&str>(&[]).contains("dpm serve"));
    let wrong = run(&["sevre"]);
    assert!(!wrong.status.success() && text(&wrong.stderr).contains("sevre"), "{wrong:?}");
}

#[test]
fn init_writes_what_check_accepts() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("dpm.toml");
    let init = |words: &[&str]| {
        let mut command = process::dpm(&["init", file.to_str().unwrap()]);
        command.args(words).env("PIP_INDEX_URL", "http://127.0.0.1:9/simple/").env("HOME", dir.path());
        process::end(command)
    };
    let output = init(&[]);
    assert!(output.status.success(), "{}", text(&output.stderr));
    assert!(text(&output.stdout).contains("dpm serve --config"));
    let written = std::fs::read_to_string(&file).unwrap();
    assert!(
        written.contains("url = \"http://127.0.0.1:9/simple/\"") && written.contains("PIP_INDEX_URL"),
        "{written}"
    );
    refused(&init(&[]), 2, &["is there already; --force replaces it"]);
    assert!(init(&["--force"]).status.success());

    let check = |words: &[&str]| {
        let mut command = process::dpm(&["config", "check", "--config", file.to_str().unwrap()]);
        command.args(words).env("DPM_DATA", dir.path().join("data"));
        process::end(command)
    };
    let output = check(&[]);
    let report = text(&output.stdout);
    assert!(output.status.success(), "{report}");
    assert!(
        report.contains("listen   127.0.0.1:3142") && report.contains("http://127.0.0.1:9/simple/"),
        "{report}"
    );
    let report: Value = serde_json::from_slice(&check(&["--json"]).stdout).unwrap();
    assert_eq!((&report["file"], &report["listen"]), (&json!(file), &json!("127.0.0.1:3142")));
    assert_eq!(report["pypi"][0]["url"], "http://127.0.0.1:9/simple/");

    // What the file says, and what is said about it.
    let cases: [(&str, &[&str]); 5] = [
        ("ofline = true", &["dpm.toml:1:", "unknown key \"ofline\"", "did you mean \"offline\""]),
        ("[store]\nbuget = \"1GB\"", &["dpm.toml:2:", "unknown key \"buget\"", "did you mean \"budget\""]),
        ("\n[store]\nbudget = 5", &["dpm.toml:3:", "budget"]),
        ("[[pypi]]\nname = \"a\"", &["url"]),
        ("listen = ", &["dpm.toml:1:"]),
    ];
    for (settings, parts) in cases {
        std::fs::write(&file, settings).unwrap();
        refused(&check(&[]), 2, parts);
        let serve = ["serve", "--config", file.to_str().unwrap(), "--data", dir.path().to_str().unwrap()];
        refused(&run(&serve), 2, parts);
    }
    std::fs::write(&file, "data = \"dpm.toml\"\n[[pypi]]\nurl = \"http://127.0.0.1:9/simple/\"").unwrap();
    let mut command = process::dpm(&["config", "check", "--config", file.to_str().unwrap()]);
    command.env_remove("DPM_DATA");
    let wrong = process::end(command);
    assert_eq!(wrong.status.code(), Some(1), "an error among the findings");
    assert!(text(&wrong.stdout).contains("is no directory"), "{}", text(&wrong.stdout));
}

#[test]
fn a_second_node_says_what_is_in_its_way() {
    let upstream = Upstream::start();
    let dir = tempfile::tempdir().unwrap();
    let (data, other) = (dir.path().join("data"), dir.path().join("other"));
    let node = Process::start(&data, &upstream.url("/simple/"), "");
    let mut arguments = process::arguments(&data, &upstream.url("/simple/"), "");
    refused(&run(&arguments), 2, &["another dpm has this data folder open", "--data"]);

    let port = node.url.strip_prefix("http://").unwrap();
    arguments = process::arguments(&other, &upstream.url("/simple/"), "");
    let at = arguments.iter().position(|a| a == Path::new("127.0.0.1:0")).unwrap();
    arguments[at] = port.into();
    refused(&run(&arguments), 2, &[&format!("cannot listen on {port}"), "is another dpm running there?"]);
    assert!(!other.exists(), "nothing was touched");
    // The first one has not noticed.
    assert_eq!(asked(&["status", "--data", data.to_str().unwrap()])["running"], true);
    assert_eq!(get(&node.url("/healthz")).status, 200);

    refused(&run(&["status", "--data", other.to_str().unwrap()]), 2, &["nothing is stored in", "--data"]);
    std::fs::create_dir(&other).unwrap();
    std::fs::write(other.join("format"), "dpm-store 99\n").unwrap();
    refused(
        &run(&["verify", "--data", other.to_str().unwrap()]),
        2,
        &["disk format 99", "use the newer dpm"],
    );
}

#[test]
fn a_killed_nodes_socket_is_in_nobodys_way() {
    let upstream = Upstream::start();
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().join("data");
    Process::start(&data, &upstream.url("/simple/"), "").kill();
    assert!(data.join("control.sock").exists());
    assert_eq!(order(&data, &["status"]).1["running"], false);
    let node = Process::start(&data, &upstream.url("/simple/"), "");
    assert_eq!(order(&data, &["status"]).1["running"], true);
    drop(node);
}

#[test]
fn it_stops_when_it_is_told_to() {
    let upstream = Upstream::start();
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().join("data");
    let stored = Listing::publish(&upstream, 1, 100_000);
    let stuck = Listing::publish(&upstream, 2, 100_000);
    upstream.route(&stuck.origin(), |_, out| {
        use std::io::Write;
        write!(out, "HTTP/1.1 200 OK\r\ncontent-length: 100000\r\n\r\nbegun")?;
        std::thread::sleep(Duration::from_secs(30));
        Ok(())
    });
    for with_a_stuck_download in [false, true] {
        let node = Process::start(&data, &upstream.url("/simple/"), "");
        fetch(&node, &stored);
        let client = with_a_stuck_download.then(|| {
            let (url, begun) = (node.url(&stuck.file()), Instant::now());
            let client = std::thread::spawn(move || attempt("GET", &url, &[]).expect("it has begun"));
            while node.metric("dpm_flights") == 0 {
                assert!(begun.elapsed() < Duration::from_secs(20));
            }
            client
        });
        let took = node.stop();
        // Running answers get 10 s.
        let limit = Duration::from_secs(if with_a_stuck_download { 20 } else { 8 });
        assert!(took < limit, "{took:?}, with a stuck download: {with_a_stuck_download}");
        if let Some(client) = client {
            let answer = client.join().unwrap();
            assert!(answer.broken.is_some(), "cut off, never ended cleanly");
        }
        assert_eq!(std::fs::read_dir(data.join("incoming")).unwrap().count(), 0);
    }
    let (_, report) = order(&data, &["verify"]);
    assert_eq!((&report["artifacts"], &report["damaged"]), (&json!(1), &json!([])));
}

/// A dpm without them has the command, and says what is missing.
#[cfg(not(feature = "rooms"))]
#[test]
fn rooms_that_were_left_out() {
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().join("data");
    let _node = Process::start(&data, "http://127.0.0.1:1/simple/", "");
    let words = ["room", "list", "--data", data.to_str().unwrap()];
    refused(&run(&words), 2, &["built without rooms"]);
}
