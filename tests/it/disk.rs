//! A full disk: whatever is asked is served, whatever is stored stays, and storing goes on when there is room.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::mpsc;
use std::time::{Duration, Instant};

use dpm::base::Sha256;

use crate::support::{
    Listing, Node, Process, Upstream, attempt, get, process, random_bytes, request, until, wheel,
};

#[test]
fn under_the_margin_bytes_pass_through() {
    let upstream = Upstream::start();
    let (old, new) = (Listing::publish(&upstream, 1, 300_000), Listing::publish(&upstream, 2, 3_000_000));
    let mut node = Node::new(&upstream.url("/simple/"));
    assert_eq!(get(&node.url(&old.file())).header("x-cache"), "MISS");
    until("it is stored", || node.metric("dpm_store_artifacts") == 1);
    assert_eq!(get(&node.url("/readyz")).status, 200);

    node.restart(|config, _| config.store.free_margin_bytes = u64::MAX / 2);
    let ready = get(&node.url("/readyz"));
    assert_eq!(ready.status, 503);
    assert!(ready.text().contains("under the margin"), "{}", ready.text());
    let stored = get(&node.url(&old.file()));
    assert_eq!(
        (stored.header("x-cache"), stored.body == old.content),
        ("HIT", true),
        "what is stored is served"
    );
    for hits in 1..=2 {
        let page = get(&node.url(&new.page()));
        assert_eq!(page.status, 200);
        assert!(page.text().contains(&new.sha256.hex()));
        let passed = get(&node.url(&new.file()));
        assert_eq!(
            (passed.status, passed.header("x-cache"), passed.body == new.content),
            (200, "BYPASS", true)
        );
        assert_eq!(passed.header("content-length"), "3000000");
        assert_eq!(upstream.hits(&new.origin()), hits, "the upstream is asked each time");
    }
    assert_eq!(upstream.hits(&format!("/simple/{}/", new.name)), 1, "a page is kept in memory");
    let part = request("GET", &node.url(&new.file()), &[("range", "bytes=1000000-1000009")]);
    assert_eq!((part.status, &part.body[..]), (206, &new.content[1_000_000..1_000_010]));
    assert_eq!(node.metric("dpm_store_artifacts"), 1);
    assert_eq!(node.metric("dpm_passed_total"), 3);
    assert_eq!(node.metric("dpm_store_failures_total"), 0, "no failure, a choice");

    node.restart(|config, _| config.store.free_margin_bytes = 0);
    assert_eq!(get(&node.url("/readyz")).status, 200);
    assert_eq!(get(&node.url(&new.file())).header("x-cache"), "MISS");
    until("it is stored", || node.metric("dpm_store_artifacts") == 2);
    assert_eq!(get(&node.url(&new.file())).header("x-cache"), "HIT");
}

#[test]
fn metadata_out_of_a_wheel_needs_no_room() {
    let text = "Metadata-Version: 2.1\nName: demo\nVersion: 1.0\n";
    let wheel = wheel("demo-1.0.dist-info", text);
    let sha256 = Sha256::of(&wheel);
    let upstream = Upstream::start();
    let (name, path) = ("demo-1.0-py3-none-any.whl", "/f/demo-1.0-py3-none-any.whl");
    upstream.file(path, "application/octet-stream", wheel);
    let page = format!("<a href=\"{}#sha256={sha256}\">{name}</a>", upstream.url(path));
    upstream.file("/simple/demo/", "text/html", page);
    let node = Node::with(&[&upstream.url("/simple/")], |config, _| {
        config.store.free_margin_bytes = u64::MAX / 2;
    });
    let metadata = get(&node.url(&format!("/pypi/files/demo/sha256-{sha256}/{name}.metadata")));
    assert_eq!((metadata.status, metadata.header("x-cache")), (200, "BYPASS"), "{}", metadata.text());
    assert_eq!(metadata.text(), text);
    assert_eq!(node.metric("dpm_store_artifacts"), 0);
}

#[test]
fn wrong_bytes_that_pass_through_are_never_whole() {
    let upstream = Upstream::start();
    let project = Listing::publish(&upstream, 1, 500_000);
    let mut wrong = project.content.clone();
    wrong[7] ^= 1;
    upstream.file(&project.origin(), "application/octet-stream", wrong);
    let full = |config: &mut dpm::config::Config| config.store.free_margin_bytes = u64::MAX / 2;
    let node = Node::with(&[&upstream.url("/simple/")], |config, _| full(config));
    let answer = attempt("GET", &node.url(&project.file()), &[]).expect("an answer");
    assert!(answer.status != 200 || answer.broken.is_some(), "{}", answer.status);
    assert!(answer.body.len() < project.content.len());
}

/// Bytes of the small disk: an index, its margin of 64 MiB, and some room.
const DISK: u64 = 160 << 20;

/// A node whose data folder is a small disk of its own, in a mount namespace of its own.
struct Small {
    node: Process,
    _dir: tempfile::TempDir,
    /// The disk as seen from here.
    disk: PathBuf,
}

impl Small {
    /// `None` where namespaces are not allowed.
    fn start(upstream: &Upstream) -> Option<Self> {
        let root = rustix::process::geteuid().is_root();
        let unshare = if root { "-m" } else { "-Urm" };
        let allowed =
            Command::new("unshare").args([unshare, "true"]).output().is_ok_and(|o| o.status.success());
        if !allowed {
            let skip = std::env::var_os("DPM_NO_NAMESPACES").is_some();
            assert!(skip, "no mount namespaces here; DPM_NO_NAMESPACES=1 passes these tests by");
            return None;
        }
        let dir = tempfile::tempdir().unwrap();
        let disk = dir.path().join("disk");
        std::fs::create_dir(&disk).unwrap();
        let settings = "[store]\nfree_margin = \"0B\"\nbudget = \"100%\"\n";
        let arguments = process::arguments(&disk.join("data"), &upstream.url("/simple/"), settings);
        // The settings lie on the small disk, which is not mounted yet.
        let settings = dir.path().join("dpm.toml");
        std::fs::rename(disk.join("data.toml"), &settings).unwrap();
        let mut arguments = arguments;
        *arguments.last_mut().unwrap() = settings;
        let script = format!("mount -t tmpfs -o size={DISK} none \"$1\" && shift && exec \"$@\"");
        let mut command = Command::new("unshare");
        command
            .args([unshare, "sh", "-c", &script, "sh"])
            .arg(&disk)
            .arg(env!("CARGO_BIN_EXE_dpm"))
            .args(arguments);
        let node = Process::spawn(command);
        let disk =
            Path::new("/proc").join(node.id().to_string()).join("root").join(disk.strip_prefix("/").unwrap());
        Some(Self { node, _dir: dir, disk })
    }

    /// Fills the disk to its last byte, as another program would.
    fn fill(&self) {
        let mut file = std::fs::File::create(self.disk.join("filler")).unwrap();
        for block in [1 << 20, 4096, 1] {
            while file.write_all(&vec![1; block]).is_ok() {}
        }
    }

    fn free(&self) {
        std::fs::remove_file(self.disk.join("filler")).unwrap();
    }

    fn is_stored(&self, project: &Listing) -> bool {
        let data = self.disk.join("data");
        let answer = process::asked(&["why", &project.digest(), "--data", data.to_str().unwrap()]);
        answer["stored"].as_bool().unwrap()
    }

    fn fetch(&self, project: &Listing, cache: &str) {
        let answer = get(&self.node.url(&project.file()));
        let name = &project.name;
        assert_eq!(
            (answer.status, answer.header("x-cache"), answer.broken.as_deref()),
            (200, cache, None),
            "{name}"
        );
        assert!(answer.body == project.content, "{name}");
        // The commit comes after the last byte.
        until("it is stored or given up", || self.node.metric("dpm_flights") == 0);
    }
}

#[test]
fn a_disk_that_fills_up_in_the_middle() {
    let upstream = Upstream::start();
    let Some(small) = Small::start(&upstream) else { return };
    let early = Listing::publish(&upstream, 1, 2_000_000);
    let (late, next) = (Listing::publish(&upstream, 3, 200_000), Listing::publish(&upstream, 4, 200_000));
    let unsized_page = |project: &Listing| {
        // Without a size nobody can know beforehand.
        let (name, file, sha256) = (&project.name, project.filename(), project.sha256);
        let page = format!(r#"<a href="{}#sha256={sha256}">{file}</a>"#, upstream.url(&project.origin()));
        upstream.file(&format!("/simple/{name}/"), "text/html", page);
    };
    small.fetch(&early, "MISS");
    assert!(small.is_stored(&early));

    // Larger than what is left above the margin.
    let huge = Listing::publish(&upstream, 2, 110 << 20);
    unsized_page(&huge);
    let content = huge.content.clone();
    upstream.route(&huge.origin(), move |_, out| {
        // Neither does the answer say how much will come.
        write!(out, "HTTP/1.1 200 OK\r\nconnection: close\r\n\r\n")?;
        out.write_all(&content)?;
        out.shutdown(std::net::Shutdown::Write)
    });
    small.fetch(&huge, "MISS");
    assert!(!small.is_stored(&huge));
    assert_eq!(upstream.hits(&huge.origin()), 2, "once for the store, once for the reader");
    assert_eq!(get(&small.node.url("/readyz")).status, 200, "what was given up is gone from the disk");

    // Another program fills the disk to the last byte while a file is on its way.
    let middle = Listing::publish(&upstream, 5, 4_000_000);
    let (half, go_on) = (mpsc::sync_channel(1), mpsc::sync_channel::<()>(1));
    let (content, first) = (middle.content.clone(), std::sync::Mutex::new(Some((half.0, go_on.1))));
    upstream.route(&middle.origin(), move |_, out| {
        write!(out, "HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n", content.len())?;
        let halves = content.split_at(content.len() / 2);
        out.write_all(halves.0)?;
        if let Some((half, go_on)) = first.lock().unwrap().take() {
            half.send(()).unwrap();
            go_on.recv().unwrap();
        }
        out.write_all(halves.1)
    });
    std::thread::scope(|scope| {
        scope.spawn(|| small.fetch(&middle, "MISS"));
        half.1.recv().unwrap();
        small.fill();
        go_on.0.send(()).unwrap();
    });
    assert!(!small.is_stored(&middle));

    // On the full disk.
    let ready = get(&small.node.url("/readyz"));
    assert_eq!(ready.status, 503);
    assert!(ready.text().contains("under the margin"), "{}", ready.text());
    small.fetch(&late, "BYPASS");
    small.fetch(&early, "HIT");
    let page = get(&small.node.url(&next.page()));
    assert_eq!((page.status, page.text().contains(&next.sha256.hex())), (200, true), "pages are served too");
    assert!(!small.is_stored(&late));
    // What is stored can be taken out, which frees space.
    let data = small.disk.join("data");
    let purged = process::asked(&["purge", &early.digest(), "--data", data.to_str().unwrap()]);
    assert_eq!(purged["artifacts"], 1);

    // With room again, everything is as before: the index is well.
    small.free();
    assert_eq!(get(&small.node.url("/readyz")).status, 200);
    for project in [&late, &next, &early] {
        small.fetch(project, "MISS");
        assert!(small.is_stored(project));
        small.fetch(project, "HIT");
    }
    let report = process::asked(&["verify", "--data", data.to_str().unwrap()]);
    assert_eq!((&report["artifacts"], &report["orphans_removed"]), (&3.into(), &0.into()), "{report}");
    assert_eq!(report["damaged"].as_array().map(Vec::len), Some(0), "{report}");
    assert!(small.node.stop() < Duration::from_secs(8));
}

#[test]
fn many_writes_at_a_full_disk_do_not_hurt_the_index() {
    let upstream = Upstream::start();
    let Some(small) = Small::start(&upstream) else { return };
    let begun = Instant::now();
    let mut refused = 0;
    // Pages are what the index itself grows by; random words do not compress.
    for seed in 0..80 {
        let name = format!("p{seed}");
        let files: Vec<_> = (0..1000)
            .map(|n| {
                format!(
                    r##"<a href="/f/x-{n}.whl#sha256={}">{name}-{n}-py3-none-any.whl</a>"##,
                    Sha256(random_bytes(seed * 1000 + n, 32).try_into().unwrap())
                )
            })
            .collect();
        upstream.file(&format!("/simple/{name}/"), "text/html", files.join("\n"));
        assert_eq!(get(&small.node.url(&format!("/pypi/simple/{name}/"))).status, 200, "{name}");
        let project = Listing::publish(&upstream, 10_000 + seed, 1_400_000);
        let answer = get(&small.node.url(&project.file()));
        assert!(answer.body == project.content && answer.broken.is_none(), "{name}");
        refused += u64::from(answer.header("x-cache") == "BYPASS");
        if begun.elapsed() > Duration::from_secs(30) {
            break;
        }
    }
    assert!(refused > 0, "the disk did fill up");
    assert_eq!(small.node.metric("dpm_store_failures_total"), 0);
    let data = small.disk.join("data");
    let purged = process::asked(&[
        "purge",
        &Listing::publish(&upstream, 10_000, 1_400_000).digest(),
        "--data",
        data.to_str().unwrap(),
    ]);
    assert_eq!(purged["artifacts"], 1, "the index takes writes");
}
