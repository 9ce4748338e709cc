//! Real clients, a real `dpm serve`, and the index that this machine uses: what the README promises.
//!
//! Needs the network, and `tests/counterparts.sh` run before.

mod devpi;
pub mod process;
pub mod tool;

use std::io::{Read, Write};
use std::net::TcpStream;

use dpm::base::Sha256;
use serde_json::{Value, json};

use crate::support::{Upstream, get, request};
use devpi::Devpi;
use process::{Dpm, Home, Net, counterpart, free_port, until};
use tool::{Tool, Way, digest, hashes, lock};

/// Locked together they make more than forty packages, of 40 MB.
const MANY: &[&str] = &[
    "aiohttp",
    "attrs",
    "black",
    "click",
    "cryptography",
    "fastapi",
    "flask",
    "httpx[http2]",
    "jinja2",
    "jsonschema",
    "marshmallow",
    "pendulum",
    "psutil",
    "pydantic",
    "pytest",
    "python-dotenv",
    "pyyaml",
    "requests",
    "rich",
    "sqlalchemy",
    "tqdm",
    "uvicorn",
];

/// Ten packages or so.
const FEW: &[&str] = &["flask", "requests"];

/// Pages that are past their time as soon as they are there.
const NO_TTL: &str = "[freshness]\nttl = \"1s\"\nmax_ttl = \"1s\"\nstale_while_revalidate = \"0s\"\n";

#[test]
fn a_locked_set_with_uv() {
    let home = Home::new();
    a_locked_set(&home, Tool::Uv);
}

#[test]
fn a_locked_set_with_pip() {
    let home = Home::new();
    a_locked_set(&home, Tool::Pip);
    // Wheels as they are, not only what is in them.
    let dpm = Dpm::serve(&home, &["--offline"]);
    let mut pip = home.client(counterpart("pip", "pip"));
    pip.args([
        "download",
        "--no-deps",
        "--no-cache-dir",
        "--quiet",
        "--require-hashes",
        "--only-binary",
        ":all:",
    ]);
    home.run(pip.args(["-d", "wheels", "-r", "lock.txt", "--index-url", &dpm.index()]));
    let locked = hashes(&home.read("lock.txt").expect("the lock"));
    let wheels: Vec<_> = std::fs::read_dir(home.path("wheels")).expect("wheels").flatten().collect();
    assert!(wheels.len() > 40, "{} wheels", wheels.len());
    for wheel in wheels {
        assert!(locked.contains(&digest(&wheel.path())), "{:?} is none of the lock's", wheel.file_name());
    }
}

/// The same installation, byte for byte: past dpm, and through it cold, warm, offline and cut off.
fn a_locked_set(home: &Home, tool: Tool) {
    let dpm = Dpm::serve(home, &[]);
    let packages = lock(home, &dpm, MANY, "lock.txt");
    assert!(packages > 40, "only {packages} packages");
    let file = home.path("lock.txt");
    let through = |dpm: &Dpm<'_>, folder| tool.install(home, &file, Way::Through(dpm), folder);

    let direct = tool.install(home, &file, Way::Direct(&home.learned()[0]), "direct");
    assert!(direct.len() > 1000, "{} files", direct.len());
    assert!(through(&dpm, "cold") == direct, "cold");
    let fetched = dpm.upstream_bytes();
    assert!(fetched > 10_000_000, "{fetched} bytes");
    assert!(through(&dpm, "warm") == direct, "warm");
    assert_eq!(dpm.upstream_bytes(), fetched, "nothing is downloaded twice");
    dpm.stop();

    let dpm = Dpm::serve(home, &["--offline"]);
    assert!(through(&dpm, "offline") == direct, "offline");
    let status = dpm.status();
    assert_eq!(asked(&status, ""), 0, "{status:#}");
    dpm.stop();

    let dpm = Dpm::serve_in(Net::CutOff, home, &[]);
    assert!(through(&dpm, "cut-off") == direct, "cut off");
    assert_eq!(dpm.upstream_bytes(), 0);
}

/// Without the upstream, pages are served past their time.
#[test]
fn cut_off_with_old_pages() {
    let home = Home::new();
    home.write(".config/dpm/dpm.toml", NO_TTL);
    let dpm = Dpm::serve(&home, &[]);
    assert!(lock(&home, &dpm, FEW, "lock.txt") > 8);
    let file = home.path("lock.txt");
    let mut cold = Vec::new();
    for (tool, folder) in [(Tool::Uv, "uv"), (Tool::Pip, "pip")] {
        cold.push(tool.install(&home, &file, Way::Through(&dpm), folder));
    }
    dpm.stop();

    let dpm = Dpm::serve_in(Net::CutOff, &home, &[]);
    let links = home.run(&mut dpm.near({
        let mut ip = home.client("ip");
        ip.args(["-oneline", "link"]);
        ip
    }));
    assert_eq!(links.lines().count(), 1, "loopback and nothing else: {links}");
    for (tool, folder, cold) in [(Tool::Uv, "uv-again", &cold[0]), (Tool::Pip, "pip-again", &cold[1])] {
        let again = tool.install(&home, &file, Way::Through(&dpm), folder);
        assert!(again == *cold, "{tool:?}");
    }
    let status = dpm.status();
    assert!(status["answers"]["stale"]["answers"].as_u64().expect("a count") >= 8, "{status:#}");
    // Unlocked too: resolving asks for pages, metadata and files.
    assert!(lock(&home, &dpm, FEW, "lock-again.txt") > 8);
    assert_eq!(home.read("lock-again.txt"), home.read("lock.txt"));
}

#[test]
fn devpi_as_the_upstream() {
    let home = Home::new();
    let devpi = Devpi::start(&home, &home.learned()[0], "dpm-of-ours");
    let upstream = format!("pypi={}", devpi.index("root/pypi"));
    let args = ["--upstream", upstream.as_str()];
    let dpm = Dpm::serve(&home, &args);
    let packages = lock(&home, &dpm, FEW, "lock.txt");
    assert!(packages >= 10, "{packages} packages");
    let file = home.path("lock.txt");
    let install =
        |tool: Tool, way, folder: &str| tool.install(&home, &file, way, &format!("{folder}-{tool:?}"));

    let index = devpi.index("root/pypi");
    let tools = [Tool::Uv, Tool::Pip];
    let direct = tools.map(|tool| install(tool, Way::Direct(&index), "direct"));
    for stage in ["cold", "warm"] {
        for (tool, direct) in tools.into_iter().zip(&direct) {
            assert!(install(tool, Way::Through(&dpm), stage) == *direct, "{tool:?}, {stage}");
        }
    }
    let fetched = dpm.upstream_bytes();
    assert!(fetched > 500_000, "{fetched} bytes");
    devpi.kill();
    for (tool, direct) in tools.into_iter().zip(&direct) {
        assert!(install(tool, Way::Through(&dpm), "without") == *direct, "{tool:?}, without devpi");
    }
    assert_eq!(dpm.upstream_bytes(), fetched, "nothing is downloaded twice");
}

/// A name that the private index has is never asked of the public one, whether it owns the name or is only first.
#[test]
fn a_private_index_first() {
    const OURS: &str = "dpm-of-ours";
    let home = Home::new();
    let public = home.learned().remove(0);
    let devpi = Devpi::start(&home, &public, OURS);
    for owns in ["", "owns = [\"dpm-of-*\"]\n"] {
        let home = Home::new();
        home.write(
            ".config/dpm/dpm.toml",
            &format!(
                "[[pypi]]\nname = \"ours\"\nurl = \"{}\"\nprivate = true\n{owns}\n\
                 [[pypi]]\nname = \"public\"\nurl = \"{public}\"\n",
                devpi.index("root/stage")
            ),
        );
        let dpm = Dpm::serve(&home, &[]);
        let index = dpm.index();
        let mut pip = home.client(counterpart("pip", "pip"));
        pip.args(["install", "--no-cache-dir", "--quiet", "--index-url", &index, "--target", "ours", OURS]);
        home.run(&mut pip);
        assert_eq!(home.read("ours/dpm_of_ours.py").as_deref(), Some("SECRET = 'ours'\n"));
        let status = dpm.status();
        assert!(asked(&status, "http://127.0.0.1") > 0, "{status:#}");
        assert_eq!(asked(&status, &origin(&public)), 0, "the public index heard a name of ours: {status:#}");

        if !owns.is_empty() {
            // A name under the same pattern that is not there is not looked for in public either.
            let mut uv = home.client(counterpart("uv", "uv"));
            uv.args([
                "pip",
                "install",
                "--no-cache",
                "--target",
                "none",
                "--default-index",
                &index,
                "--python",
            ]);
            let (ended, text) = home.try_run(uv.arg(counterpart("pip", "python")).arg("dpm-of-others"));
            assert!(!ended.success(), "{text}");
            assert_eq!(asked(&dpm.status(), &origin(&public)), 0, "{:#}", dpm.status());
        }
        let mut pip = home.client(counterpart("pip", "pip"));
        pip.args(["download", "--no-cache-dir", "--quiet", "--index-url", &index, "-d", "public", "idna"]);
        home.run(&mut pip);
        assert!(asked(&dpm.status(), &origin(&public)) > 0, "other names are");
    }
}

/// What dpm may have, whatever it serves.
const MEMORY_BYTES: u64 = 60 << 20;

/// A stored file is ready at any time: only the client's pace keeps it out of memory.
#[test]
fn a_client_that_does_not_read() {
    let wheel = vec![7; 2 * MEMORY_BYTES as usize];
    let sha256 = Sha256::of(&wheel);
    let upstream = Upstream::start();
    let name = "demo-1.0-py3-none-any.whl";
    upstream.file("/f", "application/octet-stream", wheel);
    let page = json!({
        "meta": {"api-version": "1.1"}, "name": "demo",
        "files": [{"filename": name, "url": upstream.url("/f"), "hashes": {"sha256": sha256.to_string()}}],
    });
    upstream.file("/simple/demo/", "application/vnd.pypi.simple.v1+json", page.to_string());
    let home = Home::new();
    let dpm = Dpm::serve(&home, &["--upstream", &format!("pypi={}", upstream.url("/simple/"))]);
    assert_eq!(get(&format!("{}demo/", dpm.index())).status, 200);
    let path = format!("/pypi/files/demo/sha256-{sha256}/{name}");
    let whole = |cache| {
        let answer = get(&format!("{}{path}", dpm.url()));
        assert_eq!((answer.status, answer.header("x-cache")), (200, cache));
        assert!(Sha256::of(&answer.body) == sha256);
    };
    whole("MISS");
    until("it is stored", || (dpm.status()["in_flight"] == 0).then_some(()));
    let mut idle: Vec<TcpStream> =
        (0..4).map(|_| TcpStream::connect(&dpm.url()[7..]).expect("dpm")).collect();
    for client in &mut idle {
        write!(client, "GET {path} HTTP/1.1\r\nhost: dpm\r\n\r\n").expect("it listens");
        client.read_exact(&mut [0]).expect("it answers");
    }
    whole("HIT");
    let peak = dpm.peak_memory_bytes();
    assert!(peak < MEMORY_BYTES, "{peak} bytes of memory");
}

/// A wheel that is larger than all the memory that dpm may have.
#[test]
fn larger_than_memory() {
    let home = Home::new();
    let dpm = Dpm::serve(&home, &[]);
    let mut python = home.client(counterpart("pip", "python"));
    python.args(["-c", "import sys; print('cp%d%d' % sys.version_info[:2])"]);
    let tag = home.run(&mut python).trim().to_owned();
    let (size, sha256, project, version) = ["ray", "catboost", "xgboost"]
        .into_iter()
        .flat_map(|project| {
            let url = format!("{}{project}/", dpm.index());
            let page = request("GET", &url, &[("accept", "application/vnd.pypi.simple.v1+json")]).json();
            page["files"]
                .as_array()
                .expect("files")
                .iter()
                .filter_map(|f| large(f, project, &tag))
                .collect::<Vec<_>>()
        })
        .filter(|(size, ..)| (MEMORY_BYTES..200_000_000).contains(size))
        .min()
        .expect("some project has a wheel of that size");

    for folder in ["cold", "warm"] {
        let mut pip = home.client(counterpart("pip", "pip"));
        pip.args([
            "download",
            "--no-cache-dir",
            "--quiet",
            "--no-deps",
            "--only-binary",
            ":all:",
            "-d",
            folder,
        ]);
        pip.args(["--index-url", &dpm.index(), &format!("{project}=={version}")]);
        home.run(&mut pip);
        let wheels: Vec<_> = std::fs::read_dir(home.path(folder)).expect("a wheel").flatten().collect();
        assert_eq!(wheels.len(), 1);
        assert_eq!(wheels[0].metadata().expect("a wheel").len(), size);
        assert_eq!(digest(&wheels[0].path()), sha256);
    }
    let peak = dpm.peak_memory_bytes();
    assert!(peak < MEMORY_BYTES, "{peak} bytes of memory for a file of {size}");
}

/// Size, SHA-256, project and version of a wheel for this Python and this machine.
fn large(file: &Value, project: &str, tag: &str) -> Option<(u64, String, String, String)> {
    let name = file["filename"].as_str()?;
    let parts: Vec<&str> = name.strip_suffix(".whl")?.split('-').collect();
    let &[_, version, python, _, platform] = parts.as_slice() else { return None };
    let runs = (python == "py3" || python == tag)
        && platform.contains("linux")
        && platform.ends_with(std::env::consts::ARCH)
        && version.bytes().all(|b| b.is_ascii_digit() || b == b'.')
        && !file["yanked"].as_bool().unwrap_or(file["yanked"].is_string());
    let sha256 = file["hashes"]["sha256"].as_str()?;
    runs.then_some((file["size"].as_u64()?, sha256.into(), project.into(), version.into()))
}

#[test]
fn set_up_and_back() {
    let pip = |home: &Home| {
        let mut pip = home.client(counterpart("pip", "pip"));
        pip.args(["download", "--no-cache-dir", "--quiet", "-d", "idna", "idna"]);
        home.run(&mut pip);
    };
    let uv = |home: &Home| {
        let mut uv = home.client(counterpart("uv", "uv"));
        uv.args(["pip", "install", "--no-cache", "--quiet", "--target", "idna", "idna", "--python"]);
        home.run(uv.arg(counterpart("pip", "python")));
    };
    type Use = fn(&Home);
    let cases: [(&str, &str, &str, Use); 2] = [
        ("pip", ".config/pip/pip.conf", "# mine\n[global]\ntimeout = 77\n", pip),
        ("uv", ".config/uv/uv.toml", "# mine\nconcurrent-builds = 3\n", uv),
    ];
    for (client, file, mine, use_it) in cases {
        for before in [None, Some(mine)] {
            let home = Home::bare();
            if let Some(text) = before {
                home.write(file, text);
            }
            let dpm = Dpm::serve(&home, &[]);
            home.run(home.dpm().args(["setup", client, "--url", &dpm.url()]));
            assert!(!dpm.log().contains("idna"), "{client}");
            use_it(&home);
            let log = dpm.log();
            for path in ["\"path\":\"/pypi/simple/idna/\"", "\"path\":\"/pypi/files/idna/"] {
                assert!(log.contains(path), "{client} went past dpm: {log}");
            }
            home.run(home.dpm().args(["setup", client, "--undo"]));
            assert_eq!(home.read(file).as_deref(), before, "{client}");
            assert!(before.is_some() || !home.path(".config").exists(), "{client}: folders are left behind");
        }
    }
}

/// Clients that are set up already lead to dpm, which must find what is behind it all the same.
#[test]
fn served_after_set_up() {
    let home = Home::new();
    let upstream = home.learned();
    let listen = format!("127.0.0.1:{}", free_port());
    let url = format!("http://{listen}");
    for client in ["pip", "uv"] {
        home.run(home.dpm().args(["setup", client, "--url", &url]));
    }
    let dpm = Dpm::serve(&home, &["--listen", &listen]);
    assert_eq!(dpm.url(), url);
    let status = dpm.status();
    let indexes: Vec<_> =
        status["pypi"].as_array().expect("indexes").iter().map(|i| i["url"].as_str()).collect();
    assert_eq!(indexes, upstream.iter().map(|url| Some(url.as_str())).collect::<Vec<_>>());
    let mut pip = home.client(counterpart("pip", "pip"));
    home.run(pip.args(["download", "--no-cache-dir", "--quiet", "-d", "idna", "idna"]));
    assert!(dpm.log().contains("\"path\":\"/pypi/files/idna/"), "{}", dpm.log());
}

/// Requests to origins that start like this, from `dpm status --json`.
fn asked(status: &Value, start: &str) -> u64 {
    let origins = status["origins"].as_array().expect("origins");
    let theirs =
        origins.iter().filter(|o| o["origin"].as_str().is_some_and(|origin| origin.starts_with(start)));
    theirs.map(|o| o["requests"].as_u64().expect("a number")).sum()
}

/// Scheme, host and port of a URL.
fn origin(url: &str) -> String {
    url::Url::parse(url).expect("a URL").origin().ascii_serialization()
}
