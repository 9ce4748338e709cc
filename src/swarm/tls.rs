//! TLS as libp2p has it (libp2p specs, tls/tls.md): TLS 1.3, one self-signed certificate a side, which carries the peer's
//! public key and its signature. The certificate's maker and parser are libp2p's; the configuration is ours, because
//! the order of the ciphers decides what a byte costs.

use std::sync::Arc;

use libp2p_tls::certificate;
use rustls::client::Resumption;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::aws_lc_rs::{self, cipher_suite as suite, kx_group};
use rustls::crypto::{CryptoProvider, WebPkiSupportedAlgorithms};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::server::NoServerSessionStorage;
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::sign::{CertifiedKey, SingleCertAndKey};
use rustls::{
    CertificateError, ClientConfig, DigitallySignedStruct, DistinguishedName, Error, OtherError,
    ServerConfig, SignatureScheme,
};

use super::{Identity, SwarmError};
use crate::base::PeerId;

/// The protocol's name in TLS (ALPN).
const ALPN: &[u8] = b"libp2p";

/// What a node shows of itself in a handshake, and how it handshakes.
pub(super) struct Credentials {
    certificate: Arc<SingleCertAndKey>,
    provider: Arc<CryptoProvider>,
    aes: bool,
}

impl Credentials {
    /// Makes a certificate for `identity`. It is valid for as long as the process runs.
    pub(super) fn new(identity: &Identity) -> Result<Self, SwarmError> {
        let failed = |e: &dyn std::fmt::Display| SwarmError::Certificate(e.to_string());
        let (certificate, key) = certificate::generate(identity.keypair()).map_err(|e| failed(&e))?;
        let key = aws_lc_rs::sign::any_ecdsa_type(&key).map_err(|e| failed(&e))?;
        let aes = has_aes();
        Ok(Self {
            certificate: Arc::new(SingleCertAndKey::from(CertifiedKey::new(vec![certificate], key))),
            provider: Arc::new(provider(aes)),
            aes,
        })
    }

    /// For dialling. A peer whose key is not that of `expected` is refused within the handshake.
    pub(super) fn client(&self, expected: Option<PeerId>) -> Result<ClientConfig, Error> {
        let verifier = Verifier { expected, algorithms: self.provider.signature_verification_algorithms };
        let mut config = ClientConfig::builder_with_provider(self.provider.clone())
            .with_protocol_versions(&[&rustls::version::TLS13])?
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(verifier))
            .with_client_cert_resolver(self.certificate.clone());
        config.alpn_protocols = vec![ALPN.to_vec()];
        config.enable_sni = false;
        // A resumed session skips the verifier, and all peers go by the same name: one could stand in for another.
        config.resumption = Resumption::disabled();
        Ok(config)
    }

    /// For listening. Any peer that proves its own key is let in; who may stay is decided after.
    pub(super) fn server(&self) -> Result<ServerConfig, Error> {
        let verifier =
            Verifier { expected: None, algorithms: self.provider.signature_verification_algorithms };
        let mut config = ServerConfig::builder_with_provider(self.provider.clone())
            .with_protocol_versions(&[&rustls::version::TLS13])?
            .with_client_cert_verifier(Arc::new(verifier))
            .with_cert_resolver(self.certificate.clone());
        config.alpn_protocols = vec![ALPN.to_vec()];
        config.session_storage = Arc::new(NoServerSessionStorage {});
        config.send_tls13_tickets = 0;
        // A dialler with AES in its CPU puts AES first. We would pay for it: better both take ChaCha20.
        config.ignore_client_order = !self.aes;
        Ok(config)
    }
}

/// The peer that a handshake's certificate chain names: exactly one certificate, which proves its key.
pub(super) fn peer_of(chain: &[CertificateDer<'_>]) -> Result<PeerId, Error> {
    match chain {
        [only] => Ok(certificate::parse(only)?.peer_id()),
        _ => Err(Error::General("libp2p wants exactly one certificate".into())),
    }
}

/// AES first where the CPU has it, ChaCha20 first where not: in software AES is the slower one by far.
fn provider(aes: bool) -> CryptoProvider {
    let aes_suites = [suite::TLS13_AES_128_GCM_SHA256, suite::TLS13_AES_256_GCM_SHA384];
    let chacha = [suite::TLS13_CHACHA20_POLY1305_SHA256];
    let mut provider = aws_lc_rs::default_provider();
    provider.cipher_suites =
        if aes { [&aes_suites[..], &chacha].concat() } else { [&chacha[..], &aes_suites].concat() };
    // X25519 first keeps a first flight in one packet; what travels here is public anyway.
    provider.kx_groups = vec![kx_group::X25519, kx_group::SECP256R1, kx_group::X25519MLKEM768];
    provider
}

/// Whether the CPU has instructions for AES.
fn has_aes() -> bool {
    #[cfg(any(target_arch = "x86", target_arch = "x86_64"))]
    return std::arch::is_x86_feature_detected!("aes");
    #[cfg(target_arch = "aarch64")]
    return std::arch::is_aarch64_feature_detected!("aes");
    #[cfg(not(any(target_arch = "x86", target_arch = "x86_64", target_arch = "aarch64")))]
    return false;
}

/// Checks certificates by libp2p's rules in place of a certificate authority's.
#[derive(Debug)]
struct Verifier {
    expected: Option<PeerId>,
    algorithms: WebPkiSupportedAlgorithms,
}

impl Verifier {
    fn check(&self, leaf: &CertificateDer<'_>, rest: &[CertificateDer<'_>]) -> Result<(), Error> {
        if !rest.is_empty() {
            return Err(Error::General("libp2p wants exactly one certificate".into()));
        }
        let found = certificate::parse(leaf)?.peer_id();
        match self.expected {
            Some(expected) if expected != found => {
                let wrong = Arc::new(WrongPeer { expected, found });
                Err(Error::InvalidCertificate(CertificateError::Other(OtherError(wrong))))
            }
            _ => Ok(()),
        }
    }

    fn signature(
        message: &[u8],
        leaf: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        certificate::parse(leaf)?.verify_signature(signed.scheme, message, signed.signature())?;
        Ok(HandshakeSignatureValid::assertion())
    }
}

/// Only TLS 1.3 is configured, so a signature of TLS 1.2 is refused, not checked.
fn old_tls() -> Error {
    Error::General("libp2p wants TLS 1.3".into())
}

impl ServerCertVerifier for Verifier {
    fn verify_server_cert(
        &self,
        leaf: &CertificateDer<'_>,
        rest: &[CertificateDer<'_>],
        _name: &ServerName<'_>,
        _ocsp: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        self.check(leaf, rest).map(|()| ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Err(old_tls())
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        leaf: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Self::signature(message, leaf, signed)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.algorithms.supported_schemes()
    }
}

impl ClientCertVerifier for Verifier {
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &[]
    }

    fn verify_client_cert(
        &self,
        leaf: &CertificateDer<'_>,
        rest: &[CertificateDer<'_>],
        _now: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        self.check(leaf, rest).map(|()| ClientCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Err(old_tls())
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        leaf: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Self::signature(message, leaf, signed)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.algorithms.supported_schemes()
    }
}

/// The peer that answered is not the one that was dialled.
#[derive(thiserror::Error)]
#[error("dialled {expected}, and {found} answered")]
struct WrongPeer {
    expected: PeerId,
    found: PeerId,
}

/// As rustls shows it to people.
impl std::fmt::Debug for WrongPeer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        std::fmt::Display::fmt(self, f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_cheaper_cipher_comes_first() {
        let names = |aes| -> Vec<_> { provider(aes).cipher_suites.iter().map(|s| s.suite()).collect() };
        use rustls::CipherSuite::*;
        assert_eq!(
            names(true),
            [TLS13_AES_128_GCM_SHA256, TLS13_AES_256_GCM_SHA384, TLS13_CHACHA20_POLY1305_SHA256]
        );
        assert_eq!(names(false)[0], TLS13_CHACHA20_POLY1305_SHA256);
        assert_eq!(names(false).len(), 3);
    }

    #[test]
    fn a_certificate_names_its_maker_and_nothing_else_does() {
        let identity = Identity::fresh();
        let (leaf, _) = certificate::generate(identity.keypair()).unwrap();
        assert_eq!(peer_of(std::slice::from_ref(&leaf)).unwrap(), identity.peer_id());
        assert!(peer_of(&[]).is_err());
        assert!(peer_of(&[leaf.clone(), leaf.clone()]).is_err());
        let mut bent = leaf.to_vec();
        for at in 0..bent.len() {
            bent[at] ^= 1;
            // No panic, and no other peer's name.
            if let Ok(peer) = peer_of(&[CertificateDer::from(bent.clone())]) {
                assert_eq!(peer, identity.peer_id(), "byte {at}");
            }
            bent[at] ^= 1;
        }
        for end in 0..leaf.len() {
            assert!(peer_of(&[CertificateDer::from(leaf[..end].to_vec())]).is_err());
        }
    }
}
