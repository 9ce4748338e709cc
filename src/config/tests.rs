use std::fs;

use super::*;

fn machine(dir: &Path) -> Machine {
    let vars = [("HOME".into(), dir.join("home").into())].into();
    Machine { vars, root: dir.join("root"), superuser: false }
}

fn load(toml: &str) -> Result<Config, String> {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("dpm.toml");
    fs::write(&path, toml).unwrap();
    fs::write(dir.path().join("secret"), "hunter2\n").unwrap();
    let mut machine = machine(dir.path());
    machine.vars.insert("TOKEN".into(), "t0ken".into());
    let flags = Flags { config: Some(path), ..Flags::default() };
    Config::stated(&flags, &machine)
        .map_err(|e| e.to_string().replace(&format!("{}/", dir.path().display()), ""))
}

const INDEX: &str = "[[pypi]]\nurl = 'https://index.example.org/simple'\n";

#[test]
fn every_key() {
    let config = load(
        "listen = '[::1]:80'\nnames = ['packages.example.org']\ndata = 'd'\noffline = true\nproxy = 'http://u:p@proxy.example.org:8080'\n\
         [store]\nbudget = '50GB'\nfree_margin = '2GiB'\n[freshness]\nttl = '1m'\nmax_ttl = '2m'\n\
         stale_while_revalidate = '3s'\nstale_if_error = '4d'\nnegative = '5s'\n[log]\nrequests = false\n\
         [rooms]\nmirror = 'follow'\nbudget = '1GB'\nmax_age = '2d'\naddresses = 'all'\n\
         advertise = ['/ip4/198.51.100.7/udp/4001/quic-v1']\nname = 'box'\npace = { per_second = 2, burst = 3 }\n\
         [apt]\nupstreams = ['http://deb.example.org/debian']\nprivate = true\n\
         [[pypi]]\nname = 'corp'\nurl = 'https://me@corp.example.org/simple'\nfiles = ['https://f.example.org/']\n\
         owns = ['Corp_*']\npassword_file = 'secret'\n[[pypi]]\nurl = 'https://index.example.org/simple/'\n\
         password_env = 'TOKEN'\nprivate = false\n",
    )
    .unwrap();
    assert_eq!(config.listen, "[::1]:80".parse().unwrap());
    assert_eq!(config.names, ["packages.example.org"]);
    assert!(config.data.is_absolute() && config.data.ends_with("d"), "beside the file: {:?}", config.data);
    assert!(config.offline && !config.log.requests);
    assert_eq!(config.store, Store { budget: Budget::Bytes(50_000_000_000), free_margin_bytes: 2 << 30 });
    assert_eq!(config.freshness.stale_if_error, Duration::from_secs(4 * 86_400));
    let rooms = Rooms {
        mirror: crate::members::Mode::Follow,
        budget_bytes: 1_000_000_000,
        max_age: Duration::from_secs(2 * 86_400),
        addresses: crate::wire::room::Allow::Near,
        advertise: vec!["/ip4/198.51.100.7/udp/4001/quic-v1".parse().unwrap()],
        name: Some("box".into()),
        pace: RoomPace { per_second: 2.0, burst: 3 },
    };
    assert_eq!(config.rooms, rooms);
    assert_eq!(config.rooms.display_name(), "box");
    let [source] = config.apt.as_deref().unwrap() else { panic!("{:?}", config.apt) };
    assert_eq!((source.url.as_str(), source.private), ("http://deb.example.org/debian/", true));
    let [corp, public] = &config.pypi[..] else { panic!("{:?}", config.pypi) };
    assert_eq!((corp.name.as_str(), corp.url.as_str()), ("corp", "https://corp.example.org/simple/"));
    assert_eq!((corp.username.as_deref(), corp.private), (Some("me"), true));
    assert_eq!(corp.password.as_ref().unwrap().reveal(), "hunter2");
    assert_eq!(corp.owns, ["corp-*"]);
    assert_eq!((public.name.as_str(), public.private), ("pypi-2", false));
    assert_eq!(public.password.as_ref().unwrap().reveal(), "t0ken");
    let shown = format!("{config:?}");
    assert!(!shown.contains("u:p") && !shown.contains("hunter2") && !shown.contains("t0ken"), "{shown}");
}

#[test]
fn errors_name_the_line_and_what_was_meant() {
    let cases = [
        ("\nlissen = 'x'", "dpm.toml:2: unknown key \"lissen\"; did you mean \"listen\"?"),
        ("[store]\nbudjet = '1GB'", "dpm.toml:2: unknown key \"budjet\"; did you mean \"budget\"?"),
        ("[store]\nx = 1", "dpm.toml:2: unknown key \"x\"; there are budget, free_margin"),
        (
            "[freshness]\nttl = '5'",
            "dpm.toml:2: ttl: \"5\" is no time, as \"30s\", \"5m\", \"12h\" and \"7d\" are",
        ),
        (
            "[store]\nbudget = '0%'",
            "dpm.toml:2: budget: \"0%\" is no budget, as \"20%\" of the disk and \"50GB\" are",
        ),
        (
            "names = ['a:1']",
            "dpm.toml:1: names: \"a:1\" is no name without a port, as \"packages.example.org\" is",
        ),
        ("listen = 'here'", "dpm.toml:1: listen: invalid socket address syntax"),
        ("offline = 1", "dpm.toml:1: offline: invalid type: integer `1`, expected a boolean"),
        ("[[pypi]]\nname = 'a'", "dpm.toml:1: missing field `url`"),
        (
            "[[pypi]]\nurl = 'ftp://u:hunter2@example.org'",
            "dpm.toml:1: url: an upstream is reached by http or https only",
        ),
        (
            "[[pypi]]\nurl = 'https://example.org'\npassword = 'hunter2'",
            "dpm.toml:3: password: a password does not belong in this file: write password_file = \"PATH\" or \
             password_env = \"NAME\"",
        ),
        (
            "[[pypi]]\nname='a'\nurl = 'https://example.org'\n[[pypi]]\nname='a'\nurl='https://b.example.org'",
            "dpm.toml:4: there are two [[pypi]] with the name \"a\"",
        ),
        (
            "[[pypi]]\nurl = 'https://example.org'\nowns = ['a b']",
            "dpm.toml:3: owns: \"a b\" is no pattern of names: a name pattern consists of ASCII letters, digits, '.', \
             '_', '-' and '*'",
        ),
        (
            "[[pypi]]\nurl = 'https://example.org'\npassword_env = 'NOT_THERE'",
            "the password of index pypi: $NOT_THERE is not set",
        ),
        (
            "[apt]\nupstreams = ['https://u:hunter2@deb.example.org']",
            "dpm.toml:2: upstreams: apt asks a proxy for http sources only: write http://, or leave it to apt \
             (Acquire::https::Proxy \"DIRECT\")",
        ),
        (
            "[rooms]\nmirror = 'eager'",
            "dpm.toml:2: mirror: \"eager\" is no way to mirror a room: off, lazy or follow",
        ),
        (
            "[rooms]\naddresses = 'lan'",
            "dpm.toml:2: addresses: \"lan\" are no addresses: \"global\" are those of the internet, \"all\" private \
             networks', too",
        ),
        (
            "[rooms]\nadvertise = ['198.51.100.7:4001']",
            "dpm.toml:2: advertise: \"198.51.100.7:4001\" is no address that members can dial, as \
             /ip4/198.51.100.7/udp/4001/quic-v1 is",
        ),
        (
            "[rooms]\npace = { per_second = 0, burst = 10 }",
            "dpm.toml:2: pace: both are above 0, as { per_second = 0.2, burst = 10 } says",
        ),
        ("[rooms]\npace = { rate = 1 }", "dpm.toml:2: unknown key \"rate\"; there are per_second, burst"),
        ("[rooms]\nname = ''", "dpm.toml:2: name: \"\" is no name to show: 1 to 64 bytes on one line"),
        ("[rooms]\nbudget = '20%'", "dpm.toml:2: budget: \"20%\" is no size, as \"50GB\" and \"500MiB\" are"),
        ("[rooms]\nmirrors = 'off'", "dpm.toml:2: unknown key \"mirrors\"; did you mean \"mirror\"?"),
        (
            "[[pypi]]\nname = 'A/b'\nurl = 'https://example.org'",
            "dpm.toml:1: name \"A/b\" is not made of a-z, 0-9, '-', '_' and '.'",
        ),
    ];
    for (toml, want) in cases {
        assert_eq!(load(toml).unwrap_err(), want, "{toml}");
    }
}

#[test]
fn flags_outweigh_environment_outweighs_file() {
    let dir = tempfile::tempdir().unwrap();
    let mut machine = machine(dir.path());
    let user = dir.path().join("home/.config/dpm/dpm.toml");
    let system = dir.path().join("root/etc/dpm/dpm.toml");
    let none = Flags::default();
    let listen = |flags: &Flags, machine: &Machine| Config::stated(flags, machine).unwrap().listen.port();
    assert_eq!(listen(&none, &machine), 3142);
    for (path, port) in [(&system, 1), (&user, 2)] {
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, format!("listen = '127.0.0.1:{port}'\n{INDEX}")).unwrap();
        assert_eq!(listen(&none, &machine), port);
    }
    machine.vars.insert("DPM_LISTEN".into(), "127.0.0.1:3".into());
    machine
        .vars
        .insert("DPM_UPSTREAM".into(), "pypi=https://a.example.org pypi=https://b.example.org".into());
    let config = Config::stated(&none, &machine).unwrap();
    assert_eq!((config.listen.port(), config.pypi.len()), (3, 2));
    let flags = Flags {
        listen: Some("127.0.0.1:4".parse().unwrap()),
        upstreams: vec!["pypi=https://me:pw@c.example.org/simple".into()],
        ..Flags::default()
    };
    let config = Config::load_on(&flags, &machine).unwrap();
    assert_eq!((config.listen.port(), config.pypi[0].origin.clone()), (4, Origin::Flag));
    assert_eq!((config.learned.pypi, config.apt.as_deref()), (None, Some(&[][..])), "there is no apt");
    assert!(config.data.ends_with("home/.local/share/dpm"));
    machine.superuser = true;
    assert!(Config::stated(&flags, &machine).unwrap().data.ends_with("root/var/lib/dpm"));

    let upstreams = vec!["apt=http://deb.example.org/debian".into()];
    let with_apt = Config::stated(&Flags { upstreams, ..Flags::default() }, &machine).unwrap();
    assert_eq!((with_apt.apt.unwrap()[0].origin.clone(), with_apt.pypi.len()), (Origin::Flag, 2));
    for wrong in ["https://a.example.org", "npm=https://a.example.org", "pypi=a", "apt=https://a.example.org"]
    {
        let flags = Flags { upstreams: vec![wrong.into()], ..Flags::default() };
        assert!(matches!(Config::stated(&flags, &machine), Err(ConfigError::Flag { .. })), "{wrong}");
    }
    let flags = Flags { config: Some(dir.path().join("none")), ..Flags::default() };
    assert!(matches!(Config::stated(&flags, &machine), Err(ConfigError::Read { .. })));
}

#[test]
fn learned_is_remembered() {
    let dir = tempfile::tempdir().unwrap();
    let mut machine = machine(dir.path());
    let flags = Flags { data: Some(dir.path().into()), ..Flags::default() };
    assert!(matches!(Config::load_on(&flags, &machine), Err(ConfigError::Learn(LearnError::NoClient))));
    machine.vars.insert("PIP_INDEX_URL".into(), "https://a.example.org/s".into());
    let config = Config::load_on(&flags, &machine).unwrap();
    save_learned(&config.data, &config.learned).unwrap();
    machine.vars.remove(std::ffi::OsStr::new("PIP_INDEX_URL"));
    assert_eq!(Config::load_on(&flags, &machine).unwrap().pypi, config.pypi);
    assert!(Config::load_on(&Flags { relearn: true, ..flags }, &machine).is_err());
}

#[test]
fn default_file() {
    assert!(load(&Config::default_toml(&[])).unwrap().pypi.is_empty());

    let from = Origin::Learned("pip config\nglobal.index-url".into());
    let mut corp =
        Index::from_url("corp".into(), "https://me:hunter2@corp.example.org/", from.clone()).unwrap();
    corp.owns = vec!["corp-*".into()];
    corp.files = vec![Url::parse("https://f.example.org/").unwrap()];
    let public = Index::from_url("pypi-2".into(), "https://index.example.org/simple/", from).unwrap();
    let text = Config::default_toml(&[corp.clone(), public.clone()]);
    assert!(!text.contains("hunter2"));
    let back = load(&text).unwrap().pypi;
    for (back, mut index) in back.into_iter().zip([corp, public]) {
        index.password = None;
        index.origin.clone_from(&back.origin);
        assert_eq!(back, index);
    }

    // What is commented out is valid, and is the default.
    let is_key = |line: &str| line.split_once(" = ").is_some_and(|(key, _)| !key.contains(' '));
    let text: Vec<&str> = text
        .lines()
        .map(|line| {
            line.strip_prefix("# ")
                .filter(|key| is_key(key) && !key.starts_with("password_file"))
                .unwrap_or(line)
        })
        .collect();
    let mut full = load(&text.join("\n")).unwrap();
    assert_eq!(full.data, Path::new("/var/lib/dpm"));
    assert!(full.proxy.take().is_some());
    let bare = load("data = '/var/lib/dpm'").unwrap();
    full.pypi.clear();
    assert_eq!(std::mem::take(&mut full.names), ["packages.example.org"]);
    assert_eq!(full.apt.take().map(|sources| sources.len()), Some(1));
    assert_eq!(full.rooms.name.take().as_deref(), Some("ada's laptop"));
    // Where the swarm listens by default is no list: a port that is taken is replaced.
    assert_eq!(std::mem::take(&mut full.near.listen).len(), 2);
    assert_eq!(format!("{full:?}"), format!("{bare:?}"));
}

#[test]
fn registries() {
    let known = load(INDEX).unwrap().oci;
    assert!(known.iter().any(|r| r.root && r.library && r.hosts.contains(&"docker.io".to_owned())));
    let text =
        "[[oci]]\nname = 'corp'\nurl = 'https://r.example.org'\nusername = 'u'\npassword_env = 'TOKEN'\n";
    let corp = &load(text).unwrap().oci[0];
    assert!(corp.private && !corp.root && !corp.peers);
    assert!(matches!(corp.clients, Clients::Loopback));
    let open = &load(&format!("{text}clients = 'anyone'\nroot = true")).unwrap().oci;
    assert!(matches!(open[0].clients, Clients::Anyone) && open.iter().filter(|r| r.root).count() == 1);
    let shown = load(&format!("{text}client_username = 'o'\nclient_password_env = 'TOKEN'")).unwrap();
    assert!(
        matches!(&shown.oci[0].clients, Clients::Password(name, password) if name == "o" && password.reveal() == "t0ken")
    );
    assert!(!format!("{shown:?}").contains("t0ken"));
    let refused = [
        ("clients = 'password'", "client_username"),
        ("client_username = 'o'", "client_password_file"),
        (
            "clients = 'anyone'\nclient_username = 'o'\nclient_password_env = 'TOKEN'",
            "clients = \"password\" only",
        ),
        ("clients = 'everybody'", "clients"),
        ("hosts = []", "at least one"),
        ("hosts = ['https://x.example.org/']", "no host"),
        ("password = 'x'", "password"),
        ("[[oci]]\nurl = 'https://r.example.org'", "the host"),
        ("[[oci]]\nname = 'corp'\nurl = 'https://s.example.org'", "the name"),
        ("root = true\n[[oci]]\nurl = 'https://s.example.org'\nroot = true", "root = true"),
        ("[[oci]]\nurl = 'https://s.example.org/registry'", "begins with /v2/"),
    ];
    for (more, want) in refused {
        let error = load(&format!("{text}{more}")).unwrap_err().to_string();
        assert!(error.contains(want), "{more}: {error}");
    }
}

#[test]
fn findings() {
    let corp = "[[pypi]]\nname = 'corp'\nurl = 'https://corp.example.org'\nprivate = true\n";
    let cases = [
        (INDEX.to_owned(), vec![]),
        (String::new(), vec![(Severity::Error, "no Python index")]),
        (format!("listen = '0.0.0.0:1'\n{INDEX}"), vec![(Severity::Warning, "everybody who reaches")]),
        (format!("{INDEX}{corp}"), vec![(Severity::Warning, "comes after public pypi")]),
        (format!("{corp}{INDEX}"), vec![(Severity::Warning, "owns no names")]),
        (corp.to_owned(), vec![]),
        (format!("{INDEX}{corp}owns = ['corp-*']"), vec![]),
        ("[[pypi]]\nurl = 'http://index.example.org'".into(), vec![(Severity::Warning, "plain http")]),
        (
            "[[pypi]]\nurl = 'http://127.0.0.1:3142/pypi/simple'\nprivate = true".into(),
            vec![(Severity::Error, "itself")],
        ),
        ("[[pypi]]\nurl = 'https://nexus'".into(), vec![(Severity::Note, "private network")]),
        (format!("{INDEX}name = 'a'\n{INDEX}"), vec![(Severity::Warning, "same url")]),
        (format!("[store]\nbudget = '1000000TB'\n{INDEX}"), vec![(Severity::Warning, "whole disk")]),
        (
            format!("[store]\nfree_margin = '1000000TB'\n{INDEX}"),
            vec![(Severity::Error, "nothing will be cached")],
        ),
        (format!("data = '/dev/null'\n{INDEX}"), vec![(Severity::Error, "is no directory")]),
        ("[[oci]]\nurl = 'https://r.example.org'".into(), vec![(Severity::Note, "no Python index")]),
        (
            format!("{INDEX}[[oci]]\nurl = 'http://r.example.org'\nhosts = ['docker.io']"),
            vec![(Severity::Warning, "decides what a tag means")],
        ),
        (
            format!("{INDEX}[[oci]]\nurl = 'http://127.0.0.1:3142'\nprivate = true"),
            vec![(Severity::Error, "is dpm itself")],
        ),
        (format!("{INDEX}[[oci]]\nurl = 'http://127.0.0.1:5000'\nprivate = true"), vec![]),
        (
            format!("{INDEX}[[oci]]\nurl = 'https://u@r.example.org'"),
            vec![(Severity::Warning, "no password")],
        ),
        (
            format!("{INDEX}[[oci]]\nurl = 'https://r.example.org'\nroot = true"),
            vec![(Severity::Note, "for those of docker.io")],
        ),
        (
            format!("{INDEX}[[oci]]\nurl = 'https://registry'"),
            vec![(Severity::Note, "seems to be on a private network")],
        ),
        (
            format!(
                "listen = '0.0.0.0:1'\n{INDEX}[[oci]]\nurl = 'https://u:p@r.example.org'\nclients = 'anyone'"
            ),
            vec![
                (Severity::Warning, "listen = "),
                (Severity::Warning, "everybody who reaches 0.0.0.0:1 gets its images"),
            ],
        ),
        (
            format!("[apt]\nupstreams = ['http://127.0.0.1:3142/debian']\n{INDEX}"),
            vec![(Severity::Error, "itself")],
        ),
        (format!("[rooms]\nmirror = 'follow'\n{INDEX}"), vec![]),
        (
            format!("[near]\nswarm = false\n[rooms]\nmirror = 'follow'\n{INDEX}"),
            vec![(Severity::Warning, "of no use with swarm = false")],
        ),
        (format!("[rooms]\nmax_age = '1h'\n{INDEX}"), vec![(Severity::Warning, "shorter than 12 hours")]),
        (
            format!("[rooms]\nadvertise = ['/ip4/10.0.0.7/udp/4001/quic-v1']\n{INDEX}"),
            vec![(Severity::Warning, "within a private network")],
        ),
        (
            format!("[rooms]\naddresses = 'all'\nadvertise = ['/ip4/10.0.0.7/udp/4001/quic-v1']\n{INDEX}"),
            vec![],
        ),
        (
            format!("[store]\nbudget = '1GB'\n[rooms]\nmirror = 'follow'\nbudget = '2GB'\n{INDEX}"),
            vec![(Severity::Warning, "pushes out the rest")],
        ),
        (
            format!("[rooms]\npace = {{ per_second = 50, burst = 100 }}\n{INDEX}"),
            vec![(Severity::Note, "not told of it")],
        ),
        (format!("[freshness]\nttl = '1h'\n{INDEX}"), vec![(Severity::Warning, "longer than max_ttl")]),
    ];
    for (toml, want) in cases {
        let found = load(&toml).unwrap().check();
        assert_eq!(found.len(), want.len(), "{toml}: {found:?}");
        for (finding, (severity, part)) in found.iter().zip(want) {
            assert_eq!(finding.severity, severity, "{toml}");
            assert!(finding.text.contains(part), "{}", finding.text);
        }
    }
}
