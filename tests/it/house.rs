//! The import table of `ARCHITECTURE.md`, held: imports only go down.

/// A room, and the rooms it may import. What is not listed may not be imported.
const TABLE: &[(&str, &[&str])] = &[
    ("base", &[]),
    ("unixfs", &["base"]),
    ("catalogue", &["base"]),
    ("eco", &["base"]),
    ("rt", &[]),
    // An announcement carries entries of a catalogue.
    ("wire", &["base", "catalogue"]),
    ("swarm", &["base", "rt"]),
    ("lan", &["base", "rt"]),
    ("peers", &["base", "rt"]),
    ("exchange", &["base", "wire", "unixfs", "rt", "swarm", "store", "peers", "members"]),
    ("room", &["base", "rt"]),
    ("store", &["base", "unixfs", "rt"]),
    ("members", &["base", "catalogue", "wire", "rt", "store"]),
    ("upstream", &["base"]),
    ("resolve", &["base", "eco", "catalogue", "rt", "store", "upstream", "members"]),
    ("fetch", &["base", "unixfs", "rt", "store", "upstream", "exchange", "peers"]),
    (
        "mirror",
        &[
            "base",
            "catalogue",
            "wire",
            "eco",
            "rt",
            "store",
            "swarm",
            "room",
            "exchange",
            "members",
            "resolve",
            "fetch",
        ],
    ),
    // `upstream` and `store` for their error and record types alone: they stand in the table from errors to HTTP.
    ("front", &["base", "eco", "rt", "resolve", "fetch", "upstream", "store"]),
];

/// A vendor crate, and the rooms that may name it.
const ADDRESSES: &[(&str, &[&str])] = &[
    ("fjall", &["store"]),
    ("ureq", &["upstream"]),
    ("rustls", &["upstream", "swarm"]),
    ("quinn", &["swarm"]),
    ("libp2p", &["swarm"]),
    ("libp2p_tls", &["swarm"]),
    ("libp2p_identity", &["base", "swarm"]),
    ("if_watch", &["swarm", "lan"]),
    ("if_addrs", &["lan"]),
    ("multiaddr", &["base"]),
    ("hickory_proto", &["lan"]),
    ("mdns_sd", &["lan"]),
    ("socket2", &["lan", "swarm"]),
    ("hyper", &["front", "daemon", "cli"]),
    ("argh", &["cli"]),
    ("base64", &["upstream", "front", "wire", "eco"]),
    ("http_auth", &["upstream"]),
    ("psl", &["upstream"]),
    ("async_executor", &["rt"]),
    ("html5gum", &["eco"]),
    ("toml_edit", &["config"]),
    ("matrix_sdk", &["room"]),
    ("tokio", &["room"]),
];

fn sources(folder: &std::path::Path, found: &mut Vec<std::path::PathBuf>) {
    for entry in std::fs::read_dir(folder).expect("the sources") {
        let path = entry.expect("an entry").path();
        if path.is_dir() {
            sources(&path, found);
        } else if path.extension().is_some_and(|e| e == "rs") {
            found.push(path);
        }
    }
}

#[test]
fn imports_only_go_down() {
    let src = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut files = Vec::new();
    sources(&src, &mut files);
    assert!(files.len() > 50, "the sources were found");
    let mut wrong = Vec::new();
    for file in files {
        let path = file.strip_prefix(&src).expect("below src");
        let room = path.components().next().expect("a room").as_os_str().to_str().expect("UTF-8").to_owned();
        let text = std::fs::read_to_string(&file).expect("a source");
        // Tests of a room may stand on what they like.
        let code = text.split("#[cfg(test)]\nmod tests {").next().expect("something");
        for (number, line) in code.lines().enumerate().filter(|(_, l)| !l.trim_start().starts_with("//")) {
            let at = format!("{}:{}: {}", path.display(), number + 1, line.trim());
            if let Some((_, may)) = TABLE.iter().find(|(name, _)| *name == room) {
                for import in line.split("crate::").skip(1) {
                    let to: String =
                        import.chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect();
                    if to != room && !may.contains(&to.as_str()) && !to.is_empty() {
                        wrong.push(format!("{room} may not know {to}: {at}"));
                    }
                }
            }
            for (vendor, rooms) in ADDRESSES {
                let named = line.split(|c: char| !(c.is_alphanumeric() || c == '_' || c == ':'));
                if named.into_iter().any(|w| w.starts_with(&format!("{vendor}::")))
                    && !rooms.contains(&room.as_str())
                {
                    wrong.push(format!("{vendor} lives in {rooms:?}: {at}"));
                }
            }
        }
    }
    assert!(wrong.is_empty(), "\n{}", wrong.join("\n"));
}

/// Where rooms are left out, tokio is a library of channels and locks: nothing of ours starts its runtime.
#[test]
fn without_rooms_there_is_no_runtime_of_tokio() {
    let mut command = std::process::Command::new(env!("CARGO"));
    command.args(["tree", "--offline", "--locked", "--no-default-features", "--edges", "normal,features"]);
    command.args(["--invert", "tokio", "--prefix", "none"]).current_dir(env!("CARGO_MANIFEST_DIR"));
    let output = command.output().expect("cargo runs");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let tree = String::from_utf8(output.stdout).expect("text");
    assert!(tree.contains("tokio feature \"sync\""), "it looks elsewhere:\n{tree}");
    for feature in ["rt", "rt-multi-thread", "net", "time"] {
        assert!(!tree.contains(&format!("tokio feature \"{feature}\"")), "somebody wants {feature}:\n{tree}");
    }
}
