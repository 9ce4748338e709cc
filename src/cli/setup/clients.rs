//! What each client's own configuration is: where it lies, what it states, what outweighs it.

use std::fs;
use std::path::{Path, PathBuf};

use url::Url;

use crate::config::{Client, Handover, Machine, PipConf, UvToml, is_loopback};

use super::files::{absolute, shown};
use super::{SetupError, containers};

/// A file's text with dpm in it.
pub(super) struct Pointed {
    pub(super) then: String,
    /// What it stated before.
    pub(super) before: Option<String>,
    pub(super) warnings: Vec<String>,
}

/// Points pip or uv at an index of dpm's.
pub(super) fn point(
    client: Client,
    text: &str,
    index_url: &str,
    trusted_host: Option<&str>,
    file: &Path,
) -> Result<Pointed, String> {
    let mut warnings = Vec::new();
    if client == Client::Pip {
        let mut conf = PipConf::parse(text)?;
        let before = conf.index_url().map(str::to_owned);
        for section in ["global", "install"] {
            if conf.value(section, "extra-index-url").is_some_and(|urls| !urls.is_empty()) {
                warnings.push(format!(
                    "{} has [{section}] extra-index-url: pip asks that index directly, past dpm and past the names \
                     that dpm keeps for an index of yours; move it into dpm.toml",
                    file.display()
                ));
            }
        }
        conf.point_at(index_url, trusted_host);
        return Ok(Pointed { then: conf.text(), before, warnings });
    }
    let mut conf = UvToml::parse(text)?;
    let before = conf.default_url().map(str::to_owned);
    if !conf.other_urls().is_empty() {
        warnings.push(format!(
            "{} has further indexes: uv asks them first and directly, past dpm; move them into dpm.toml",
            file.display()
        ));
    }
    conf.point_at(index_url, trusted_host);
    Ok(Pointed { then: conf.text(), before, warnings })
}

/// The text without our lines, or where they are if somebody wove their own into them.
pub(super) fn take_out(handover: &Handover, text: &str) -> Result<String, SetupError> {
    let previous = handover.previous.as_deref().unwrap_or_default();
    let (url, host) = (&handover.index_url, handover.trusted_host.as_deref());
    let client = handover.client;
    let mark = if containers::is(client) { containers::mark(client, url) } else { url.clone() };
    let then = match client {
        Client::Docker | Client::Podman | Client::Containerd => {
            containers::take_out(client, text, url, host, previous)
        }
        Client::Pip => PipConf::parse(text).and_then(|mut conf| {
            conf.take_out(url, host, &PipConf::parse(previous)?);
            Ok(conf.text())
        }),
        Client::Uv => UvToml::parse(text).and_then(|mut conf| {
            conf.take_out(url, host, &UvToml::parse(previous)?);
            Ok(conf.text())
        }),
    };
    match then {
        Ok(then) if previous.contains(&mark) || !then.contains(&mark) => Ok(then),
        _ => {
            let ours = text.lines().enumerate().filter(|(_, line)| line.contains(&mark));
            let lines: Vec<String> =
                ours.map(|(at, line)| format!("  {}: {}", at + 1, line.trim())).collect();
            Err(SetupError::Edited { file: handover.file.clone(), lines: lines.join("\n") })
        }
    }
}

pub(super) fn stated_index(client: Client, text: &str) -> Option<String> {
    match client {
        Client::Pip => PipConf::parse(text).ok()?.index_url().map(shown),
        Client::Uv => UvToml::parse(text).ok()?.default_url().map(shown),
        Client::Docker | Client::Podman | Client::Containerd => containers::stated(client, text),
    }
}

/// The URL that a client is given: the simple API of the dpm at this base, or the base itself.
pub(super) fn our_url(client: Client, base_url: &Url) -> Result<String, SetupError> {
    if !matches!(base_url.scheme(), "http" | "https")
        || base_url.query().is_some()
        || base_url.fragment().is_some()
    {
        return Err(SetupError::BadUrl);
    }
    if containers::is(client) {
        return containers::url(client, base_url);
    }
    Ok(format!("{}/pypi/simple/", base_url.as_str().trim_end_matches('/')))
}

/// The host to call trusted: pip and uv trust https, and plain http to this very machine.
pub(super) fn trusted_host(base_url: &Url) -> Option<String> {
    if base_url.scheme() == "https" || is_loopback(base_url) {
        return None;
    }
    let host = base_url.host_str()?;
    Some(base_url.port().map_or(host.to_owned(), |port| format!("{host}:{port}")))
}

pub(super) fn client_file(client: Client, machine: &Machine) -> Result<PathBuf, SetupError> {
    let config = || machine.config_home().ok_or(SetupError::NoHome);
    let variable = match client {
        Client::Pip => "PIP_CONFIG_FILE",
        Client::Uv => "UV_CONFIG_FILE",
        Client::Docker | Client::Podman | Client::Containerd => {
            return absolute(containers::file(client, machine)?);
        }
    };
    let named = match (machine.path(variable), client) {
        (Some(null), _) if null == Path::new("/dev/null") => {
            return Err(SetupError::Disabled { client, variable });
        }
        (Some(file), _) => file,
        (None, Client::Uv) => config()?.join("uv/uv.toml"),
        (None, _) => {
            let file = config()?.join("pip/pip.conf");
            let legacy = machine.home().map(|home| home.join(".pip/pip.conf"));
            legacy.filter(|legacy| legacy.exists() && !file.exists()).unwrap_or(file)
        }
    };
    absolute(named)
}

/// What outweighs the file that we write.
pub(super) fn overrides(client: Client, machine: &Machine) -> Vec<String> {
    let names: &[&str] = match client {
        Client::Pip => &["PIP_INDEX_URL", "PIP_EXTRA_INDEX_URL", "PIP_NO_INDEX"],
        Client::Uv => &["UV_DEFAULT_INDEX", "UV_INDEX_URL", "UV_INDEX", "UV_EXTRA_INDEX_URL", "UV_NO_CONFIG"],
        Client::Docker | Client::Podman | Client::Containerd => &[],
    };
    let mut warnings: Vec<String> = names
        .iter()
        .filter(|name| machine.var(name).is_some())
        .map(|name| format!("${name} is set and outweighs the file in this environment"))
        .collect();
    if client == Client::Pip
        && let Some(file) = machine.path("VIRTUAL_ENV").map(|dir| dir.join("pip.conf"))
        && fs::read_to_string(&file).is_ok_and(|text| text.contains("index-url"))
    {
        warnings.push(format!("{} states an index too and outweighs the user's file", file.display()));
    }
    warnings
}
