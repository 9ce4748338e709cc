//! A token server: what a registry with `auth: token` sends its clients to.

use std::io::Write;
use std::net::TcpStream;
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::{SystemTime, UNIX_EPOCH};

use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair};
use serde_json::{Value, json};

use crate::support::Upstream;
use crate::support::upstream::{ANY, Asked};

pub const SERVICE: &str = "registry.test";
pub const USER: &str = "ada";
pub const PASSWORD: &str = "open sesame";
const ISSUER: &str = "tokens.test";

/// Signs every token. Nobody else trusts it.
const KEY: &[u8] = include_bytes!("../../fixtures/oci/token-key.pk8");
/// Its public half in a certificate, which is how the registry wants to be told.
const CERTIFICATE: &str = include_str!("../../fixtures/oci/token-cert.pem");
/// What the registry calls the key: the first 30 bytes of the SHA-256 of the public key in DER, in base 32.
const KEY_ID: &str = "XPMI:3COB:6UCZ:5PTA:2ZNR:I3HS:EZQI:IV2E:QNJG:6TAD:BOWD:KFQM";

/// Gives [`USER`] what is asked for, and anybody else `pull` on names below `public/`.
pub struct Tokens {
    pub upstream: Upstream,
    issued: Arc<Mutex<Vec<String>>>,
}

impl Tokens {
    /// Starts one whose tokens say that they live so long.
    pub fn start(lifetime_seconds: u64) -> Self {
        let (upstream, issued) = (Upstream::start(), Arc::<Mutex<Vec<String>>>::default());
        let theirs = issued.clone();
        upstream.route(ANY, move |asked, out| answer(asked, out, lifetime_seconds, &theirs));
        Self { upstream, issued }
    }

    /// Where clients are sent.
    pub fn realm(&self) -> String {
        self.upstream.url("/token")
    }

    /// What a registry without this server's key can tell by: whether a token is from here.
    pub fn checker(&self) -> impl Fn(&str) -> bool + Send + Sync + 'static {
        let issued = self.issued.clone();
        move |token| issued.lock().unwrap().iter().any(|known| known == token)
    }

    /// No token from before is known any more.
    pub fn forget(&self) {
        self.issued.lock().unwrap().clear();
    }

    /// How many tokens were given.
    pub fn given(&self) -> usize {
        self.issued.lock().unwrap().len()
    }

    /// The registry's settings; the certificate goes into this folder.
    pub fn settings(&self, folder: &Path) -> String {
        let bundle = folder.join("tokens.pem");
        std::fs::write(&bundle, CERTIFICATE).expect("a file");
        let (realm, bundle) = (self.realm(), bundle.display().to_string());
        json!({"token": {
            "realm": realm, "service": SERVICE, "issuer": ISSUER, "rootcertbundle": bundle,
        }})
        .to_string()
    }
}

/// `Basic` as a header says it.
pub fn basic(user: &str, password: &str) -> String {
    format!("Basic {}", base64(format!("{user}:{password}").as_bytes(), STANDARD, "="))
}

fn answer(
    asked: &Asked,
    out: &mut TcpStream,
    lifetime_seconds: u64,
    issued: &Mutex<Vec<String>>,
) -> std::io::Result<()> {
    let known = asked.header("authorization") == basic(USER, PASSWORD);
    if !known && !asked.header("authorization").is_empty() {
        return out.write_all(b"HTTP/1.1 401 No\r\ncontent-length: 0\r\n\r\n");
    }
    let url = url::Url::parse("http://tokens.test").and_then(|base| base.join(&asked.path)).expect("a URL");
    let access: Vec<Value> = url
        .query_pairs()
        .filter(|(name, _)| name == "scope")
        .filter_map(|(_, scope)| {
            let mut words = scope.splitn(3, ':');
            let (kind, name, actions) = (words.next()?, words.next()?, words.next()?);
            let actions: Vec<_> = actions
                .split(',')
                .filter(|action| known || (name.starts_with("public/") && *action == "pull"))
                .collect();
            Some(json!({"type": kind, "name": name, "actions": actions}))
        })
        .collect();
    let now = SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970").as_secs();
    let number = issued.lock().unwrap().len();
    let token = sign(&json!({
        "iss": ISSUER, "sub": if known { USER } else { "" }, "aud": SERVICE, "jti": number.to_string(),
        "iat": now, "nbf": now - 10, "exp": now + lifetime_seconds, "access": access,
    }));
    issued.lock().unwrap().push(token.clone());
    let body = json!({"token": token, "access_token": token, "expires_in": lifetime_seconds}).to_string();
    let length = body.len();
    write!(out, "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: {length}\r\n\r\n{body}")
}

/// A JSON Web Token, signed with ES256.
fn sign(claims: &Value) -> String {
    let head = json!({"typ": "JWT", "alg": "ES256", "kid": KEY_ID});
    let part = |value: &Value| base64(value.to_string().as_bytes(), URL_SAFE, "");
    let signed = format!("{}.{}", part(&head), part(claims));
    let key = EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, KEY).expect("a key");
    let signature = key.sign(&SystemRandom::new(), signed.as_bytes()).expect("a signature");
    format!("{signed}.{}", base64(signature.as_ref(), URL_SAFE, ""))
}

const STANDARD: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
const URL_SAFE: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";

fn base64(bytes: &[u8], alphabet: &[u8; 64], pad: &str) -> String {
    let mut text = String::new();
    for three in bytes.chunks(3) {
        let bits =
            three.iter().fold(0u32, |bits, byte| bits << 8 | u32::from(*byte)) << (8 * (3 - three.len()));
        for n in 0..4 {
            match n <= three.len() {
                true => text.push(char::from(alphabet[(bits >> (18 - 6 * n)) as usize & 63])),
                false => text.push_str(pad),
            }
        }
    }
    text
}
