//! A real homeserver on loopback: Synapse on SQLite, which can be killed and started again.

use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::door::Door;
use crate::clients::process::counterpart;

/// How long it may take to start: 3 to 6 s on a machine that is doing nothing else.
const START_TIME: Duration = Duration::from_secs(90);

/// How fast it lets an account send.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Limits {
    /// As Synapse has it by default: ten events, then one in five seconds.
    Default,
    /// Never in the way.
    Raised,
}

/// A certificate authority's, and a homeserver's on 127.0.0.1 that it vouches for.
const FIXTURES: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fixtures/room");

/// What [`Synapse::tls`] is vouched for by.
pub fn authority() -> PathBuf {
    Path::new(FIXTURES).join("ca.pem")
}

/// A homeserver with a [`Door`] in front.
pub struct Synapse {
    folder: tempfile::TempDir,
    child: Option<Child>,
    address: SocketAddr,
    tls: SocketAddr,
    pub door: Door,
    /// What stands behind the colon of its users' ids, and what other homeservers call it.
    pub name: String,
}

/// Somebody's account, and a device of it that speaks plain HTTP.
pub struct Account {
    pub name: String,
    pub user: String,
    pub token: String,
}

/// Everybody's password.
pub const PASSWORD: &str = "correct horse";

impl Synapse {
    /// One that knows no others.
    pub fn start(limits: Limits) -> Self {
        let mut synapse = Self::prepare(limits, Some("room.test"));
        synapse.revive();
        synapse
    }

    /// Two that know each other, started together.
    pub fn pair(limits: Limits) -> [Self; 2] {
        let mut pair = [Self::prepare(limits, None), Self::prepare(limits, None)];
        pair.iter_mut().for_each(Self::launch);
        pair.iter_mut().for_each(Self::await_start);
        pair
    }

    /// Without a name it goes by its address with TLS, which is where others look for it: no names have to be looked up.
    fn prepare(limits: Limits, name: Option<&str>) -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        // Free now, and nobody else's when it is started again: ports are given out in turn.
        let port = || TcpListener::bind("127.0.0.1:0").and_then(|l| l.local_addr()).expect("a port");
        let (address, tls) = (port(), port());
        std::fs::write(folder.path().join("key"), format!("ed25519 a_test {}\n", "A".repeat(43))).unwrap();
        let mut settings = settings(folder.path(), address.port(), tls.port(), limits);
        let name = name.map_or_else(|| tls.to_string(), str::to_owned);
        settings["server_name"] = name.clone().into();
        std::fs::write(folder.path().join("homeserver.yaml"), settings.to_string()).unwrap();
        Self { folder, child: None, address, tls, door: Door::start(address), name }
    }

    /// Starts it, or starts it again on what it had.
    pub fn revive(&mut self) {
        self.launch();
        self.await_start();
    }

    fn launch(&mut self) {
        let log = std::fs::File::create(self.log()).expect("a log");
        let mut command = Command::new(counterpart("synapse", "python"));
        command
            .args(["-m", "synapse.app.homeserver", "-c", "homeserver.yaml"])
            .current_dir(self.folder.path());
        command.env_clear().stdin(Stdio::null());
        command.stdout(log.try_clone().expect("a log")).stderr(log);
        self.child = Some(command.spawn().expect("synapse is started"));
    }

    fn await_start(&mut self) {
        let begun = Instant::now();
        while self.versions().is_err() {
            let ended = self.child.as_mut().expect("launched").try_wait().expect("it is ours");
            assert!(
                ended.is_none() && begun.elapsed() < START_TIME,
                "synapse does not start:\n{}",
                self.said()
            );
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    fn versions(&self) -> Result<(), String> {
        TcpStream::connect(self.address).map_err(|e| e.to_string())?;
        self.attempt("GET", "client/versions", None, None).map(|_| ())
    }

    /// Ends it as a power cut would.
    pub fn kill(&mut self) {
        let mut child = self.child.take().expect("it runs");
        child.kill().expect("it is ours");
        child.wait().expect("it ends");
    }

    fn log(&self) -> PathBuf {
        self.folder.path().join("log")
    }

    fn said(&self) -> String {
        std::fs::read_to_string(self.log()).unwrap_or_default()
    }

    /// Its address, through the door.
    pub fn url(&self) -> String {
        self.door.url()
    }

    /// Its address with TLS, past the door.
    pub fn tls(&self) -> String {
        format!("https://{}", self.tls)
    }

    /// A new account with [`PASSWORD`].
    pub fn account(&self, name: &str) -> Account {
        let body = json!({"username": name, "password": PASSWORD, "auth": {"type": "m.login.dummy"}});
        let made = self.ask("POST", "client/v3/register", None, Some(body));
        let text = |key: &str| made[key].as_str().expect(key).to_owned();
        Account { name: name.into(), user: text("user_id"), token: text("access_token") }
    }

    /// A request that succeeds, past the door.
    pub fn ask(&self, method: &str, path: &str, token: Option<&str>, body: Option<Value>) -> Value {
        self.attempt(method, path, token, body)
            .unwrap_or_else(|e| panic!("{method} {path}: {e}\n{}", self.said()))
    }

    fn attempt(
        &self,
        method: &str,
        path: &str,
        token: Option<&str>,
        body: Option<Value>,
    ) -> Result<Value, String> {
        let url = format!("http://{}/_matrix/{path}", self.address);
        let mut request = http::Request::builder().method(method).uri(url);
        if let Some(token) = token {
            request = request.header("authorization", format!("Bearer {token}"));
        }
        let body = body.map(|b| b.to_string()).unwrap_or_default();
        let request = request.body(body).map_err(|e| e.to_string())?;
        let agent = ureq::Agent::new_with_config(
            ureq::Agent::config_builder()
                .http_status_as_error(false)
                .allow_non_standard_methods(true)
                .timeout_global(Some(START_TIME))
                .proxy(None)
                .build(),
        );
        let mut response = agent.run(request).map_err(|e| e.to_string())?;
        let text = response.body_mut().read_to_string().map_err(|e| e.to_string())?;
        match response.status().is_success() {
            true => serde_json::from_str(&text).map_err(|e| e.to_string()),
            false => Err(format!("{} {text}", response.status())),
        }
    }
}

impl Drop for Synapse {
    fn drop(&mut self) {
        if self.child.is_some() {
            self.kill();
        }
    }
}

/// JSON is YAML.
fn settings(folder: &Path, port: u16, tls: u16, limits: Limits) -> Value {
    let often = json!({"per_second": 1000, "burst_count": 1000});
    let mut settings = json!({
        "pid_file": folder.join("pid"),
        "listeners": [listener(port, false), listener(tls, true)],
        "tls_certificate_path": Path::new(FIXTURES).join("server.pem"),
        "tls_private_key_path": Path::new(FIXTURES).join("server.key"),
        "database": {"name": "sqlite3", "args": {"database": folder.join("db")}},
        "media_store_path": folder.join("media"),
        "signing_key_path": folder.join("key"),
        "macaroon_secret_key": "test", "registration_shared_secret": "test", "form_secret": "test",
        "trusted_key_servers": [], "report_stats": false,
        "federation_custom_ca_list": [authority()], "ip_range_blacklist": [],
        // One that did not answer is asked again after a minute, and then after ten, by default.
        "federation": {
            "max_long_retry_delay": "1s",
            "destination_min_retry_interval": "1s", "destination_max_retry_interval": "2s",
        },
        "enable_registration": true, "enable_registration_without_verification": true,
        // The least that bcrypt has.
        "bcrypt_rounds": 4,
        // Tests make many accounts in a moment, which people do not.
        "rc_registration": often, "rc_joins": {"local": often, "remote": often},
        "rc_login": {"address": often, "account": often, "failed_attempts": often},
    });
    if limits == Limits::Raised {
        settings["rc_message"] = often;
    }
    settings
}

fn listener(port: u16, tls: bool) -> Value {
    json!({
        "port": port, "type": "http", "tls": tls, "bind_addresses": ["127.0.0.1"],
        "resources": [{"names": ["client", "federation"], "compress": false}],
    })
}
