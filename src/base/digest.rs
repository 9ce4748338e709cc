//! Digests as ecosystems write them, and the hashers that check them.

use std::fmt;
use std::str::FromStr;

use md5::Digest as _;

use super::varint::{put_varint, read_varint};

/// A hash function that some ecosystem names artifacts with.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Algorithm {
    /// RFC 1321. Names an artifact, vouches for nothing.
    Md5,
    /// FIPS 180-4. Names an artifact, vouches for nothing.
    Sha1,
    /// FIPS 180-4.
    Sha224,
    /// FIPS 180-4: what most ecosystems use, and our own.
    Sha256,
    /// FIPS 180-4.
    Sha384,
    /// FIPS 180-4: npm's `integrity`.
    Sha512,
}

impl Algorithm {
    /// Strongest last.
    pub const ALL: [Algorithm; 6] =
        [Self::Md5, Self::Sha1, Self::Sha224, Self::Sha256, Self::Sha384, Self::Sha512];

    /// The lower-case name used in URLs, HTML fragments and PEP 691 `hashes` (Python's `hashlib` names).
    pub const fn name(self) -> &'static str {
        match self {
            Self::Md5 => "md5",
            Self::Sha1 => "sha1",
            Self::Sha224 => "sha224",
            Self::Sha256 => "sha256",
            Self::Sha384 => "sha384",
            Self::Sha512 => "sha512",
        }
    }

    /// Length of a digest in bytes.
    pub const fn digest_len(self) -> usize {
        match self {
            Self::Md5 => 16,
            Self::Sha1 => 20,
            Self::Sha224 => 28,
            Self::Sha256 => 32,
            Self::Sha384 => 48,
            Self::Sha512 => 64,
        }
    }

    /// Whether collisions are out of reach, so that the digest vouches for bytes from a stranger.
    pub const fn is_strong(self) -> bool {
        matches!(self, Self::Sha256 | Self::Sha384 | Self::Sha512)
    }
}

impl fmt::Display for Algorithm {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for Algorithm {
    type Err = DigestError;
    fn from_str(name: &str) -> Result<Self, DigestError> {
        Self::ALL
            .into_iter()
            .find(|a| a.name() == name)
            .ok_or_else(|| DigestError::UnknownAlgorithm(name.chars().take(32).collect()))
    }
}

/// Codes of the multicodec table.
const MULTIHASH_CODES: [(Algorithm, u64); 6] = [
    (Algorithm::Md5, 0xd5),
    (Algorithm::Sha1, 0x11),
    (Algorithm::Sha224, 0x1013),
    (Algorithm::Sha256, 0x12),
    (Algorithm::Sha384, 0x20),
    (Algorithm::Sha512, 0x13),
];

/// A digest: the algorithm and its bytes.
///
/// Written `sha256:<hex>`; the hex is lower case.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Digest {
    algorithm: Algorithm,
    bytes: [u8; 64],
}

impl Digest {
    /// From the raw bytes of a digest; `None` when the length is not the algorithm's.
    pub fn new(algorithm: Algorithm, bytes: &[u8]) -> Option<Self> {
        if bytes.len() != algorithm.digest_len() {
            return None;
        }
        let mut all = [0; 64];
        all[..bytes.len()].copy_from_slice(bytes);
        Some(Self { algorithm, bytes: all })
    }

    /// From hex in either case.
    pub fn parse(algorithm: Algorithm, hex: &str) -> Result<Self, DigestError> {
        let hex = hex.as_bytes();
        if hex.len() != 2 * algorithm.digest_len() {
            return Err(DigestError::Length { algorithm, digits: hex.len() });
        }
        let mut bytes = [0; 64];
        for (byte, pair) in bytes.iter_mut().zip(hex.chunks_exact(2)) {
            let digit = |c: u8| (c as char).to_digit(16).ok_or(DigestError::NotHex(algorithm));
            *byte = (digit(pair[0])? << 4 | digit(pair[1])?) as u8;
        }
        Ok(Self { algorithm, bytes })
    }

    /// The hash function.
    pub const fn algorithm(&self) -> Algorithm {
        self.algorithm
    }

    /// The digest's own bytes, as many as [`Algorithm::digest_len`].
    pub fn bytes(&self) -> &[u8] {
        &self.bytes[..self.algorithm.digest_len()]
    }

    /// See [`Algorithm::is_strong`].
    pub const fn is_strong(&self) -> bool {
        self.algorithm.is_strong()
    }

    /// Lower-case hex without the algorithm.
    pub fn hex(&self) -> String {
        hex(self.bytes())
    }

    /// As a multihash: the code of the function and the length as varints, then the digest.
    pub fn to_multihash(&self) -> Vec<u8> {
        let code = MULTIHASH_CODES.iter().find(|(a, _)| *a == self.algorithm).map_or(0, |(_, code)| *code);
        let mut bytes = Vec::with_capacity(68);
        put_varint(&mut bytes, code);
        put_varint(&mut bytes, self.bytes().len() as u64);
        bytes.extend_from_slice(self.bytes());
        bytes
    }

    /// From a multihash, all of it; `None` for other functions and for wrong lengths.
    pub fn from_multihash(bytes: &[u8]) -> Option<Self> {
        let (code, first) = read_varint(bytes).ok().flatten()?;
        let (length, second) = read_varint(&bytes[first..]).ok().flatten()?;
        let (algorithm, _) = MULTIHASH_CODES.iter().find(|(_, c)| *c == code)?;
        let digest = &bytes[first + second..];
        Self::new(*algorithm, digest).filter(|_| length == digest.len() as u64)
    }

    /// This digest as a SHA-256, when it is one.
    pub fn sha256(&self) -> Option<Sha256> {
        (self.algorithm == Algorithm::Sha256)
            .then(|| Sha256(self.bytes().try_into().expect("sha256 is 32 bytes")))
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.algorithm, self.hex())
    }
}

impl fmt::Debug for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for Digest {
    type Err = DigestError;
    /// `sha256:<hex>`, also with `=` or `-` between (HTML fragments, our own URLs).
    fn from_str(text: &str) -> Result<Self, DigestError> {
        let (algorithm, hex) = text.split_once([':', '=', '-']).ok_or(DigestError::NoAlgorithm)?;
        Self::parse(algorithm.parse()?, hex)
    }
}

/// SHA-256 of a whole artifact: the name under which the store keeps it.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Sha256(pub [u8; 32]);

impl Sha256 {
    /// Of bytes in memory.
    pub fn of(bytes: &[u8]) -> Self {
        let mut hasher = Hasher::new(Algorithm::Sha256);
        hasher.update(bytes);
        hasher.finish().sha256().expect("a sha256 hasher gives a sha256")
    }

    /// As a [`Digest`].
    pub fn digest(&self) -> Digest {
        Digest::new(Algorithm::Sha256, &self.0).expect("32 bytes")
    }

    /// Lower-case hex.
    pub fn hex(&self) -> String {
        hex(&self.0)
    }
}

impl fmt::Display for Sha256 {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.hex())
    }
}

impl fmt::Debug for Sha256 {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "sha256:{}", self.hex())
    }
}

/// Hashes bytes as they pass.
#[derive(Clone)]
pub enum Hasher {
    #[doc(hidden)]
    Md5(md5::Md5),
    #[doc(hidden)]
    Sha(Algorithm, aws_lc_rs::digest::Context),
}

impl Hasher {
    /// An empty hasher.
    pub fn new(algorithm: Algorithm) -> Self {
        use aws_lc_rs::digest as d;
        let sha = match algorithm {
            Algorithm::Md5 => return Self::Md5(md5::Md5::new()),
            Algorithm::Sha1 => &d::SHA1_FOR_LEGACY_USE_ONLY,
            Algorithm::Sha224 => &d::SHA224,
            Algorithm::Sha256 => &d::SHA256,
            Algorithm::Sha384 => &d::SHA384,
            Algorithm::Sha512 => &d::SHA512,
        };
        Self::Sha(algorithm, d::Context::new(sha))
    }

    /// Takes the next bytes.
    pub fn update(&mut self, bytes: &[u8]) {
        match self {
            Self::Md5(h) => h.update(bytes),
            Self::Sha(_, h) => h.update(bytes),
        }
    }

    /// The digest of all that was taken.
    pub fn finish(self) -> Digest {
        match self {
            Self::Md5(h) => Digest::new(Algorithm::Md5, &h.finalize()),
            Self::Sha(algorithm, h) => Digest::new(algorithm, h.finish().as_ref()),
        }
        .expect("a hasher gives its algorithm's length")
    }
}

fn hex(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    let mut text = String::with_capacity(2 * bytes.len());
    for b in bytes {
        text.push(DIGITS[usize::from(b >> 4)] as char);
        text.push(DIGITS[usize::from(b & 15)] as char);
    }
    text
}

/// Why a text is no digest.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DigestError {
    /// Not one of [`Algorithm::ALL`].
    #[error("unknown hash algorithm {0:?}")]
    UnknownAlgorithm(String),
    /// No `algorithm:` in front.
    #[error("a digest is written algorithm:hex")]
    NoAlgorithm,
    /// Too few or too many hex digits.
    #[error("{algorithm} has {} hex digits, not {digits}", 2 * algorithm.digest_len())]
    Length {
        /// What was named.
        algorithm: Algorithm,
        /// How many digits stood there.
        digits: usize,
    },
    /// Something else than hex digits.
    #[error("a {0} digest is hexadecimal")]
    NotHex(Algorithm),
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn known_answers() {
        // RFC 1321 A.5 and FIPS 180 examples, for "abc".
        let cases = [
            (Algorithm::Md5, "900150983cd24fb0d6963f7d28e17f72"),
            (Algorithm::Sha1, "a9993e364706816aba3e25717850c26c9cd0d89d"),
            (Algorithm::Sha224, "23097d223405d8228642a477bda255b32aadbce4bda0b3f7e36c9da7"),
            (Algorithm::Sha256, "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"),
        ];
        for (algorithm, want) in cases {
            let mut h = Hasher::new(algorithm);
            h.update(b"a");
            h.update(b"bc");
            assert_eq!(h.finish(), Digest::parse(algorithm, want).unwrap(), "{algorithm}");
        }
    }

    #[test]
    fn text_forms() {
        let hex = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
        for form in ["sha256:", "sha256=", "sha256-"] {
            let d: Digest = format!("{form}{}", hex.to_uppercase()).parse().unwrap();
            assert_eq!(d.to_string(), format!("sha256:{hex}"));
        }
        assert_eq!(
            "sha256:00".parse::<Digest>(),
            Err(DigestError::Length { algorithm: Algorithm::Sha256, digits: 2 })
        );
        assert_eq!(
            format!("sha256:{}", "zz".repeat(32)).parse::<Digest>(),
            Err(DigestError::NotHex(Algorithm::Sha256))
        );
        assert_eq!("crc32:00".parse::<Digest>(), Err(DigestError::UnknownAlgorithm("crc32".into())));
        assert_eq!("abc".parse::<Digest>(), Err(DigestError::NoAlgorithm));
        assert!(Digest::parse(Algorithm::Md5, &"é".repeat(16)).is_err(), "not ASCII, right byte length");
    }

    #[test]
    fn multihashes() {
        for algorithm in Algorithm::ALL {
            let digest = Digest::new(algorithm, &vec![7; algorithm.digest_len()]).unwrap();
            let bytes = digest.to_multihash();
            assert_eq!(Digest::from_multihash(&bytes), Some(digest));
            for end in 0..bytes.len() {
                assert_eq!(Digest::from_multihash(&bytes[..end]), None);
            }
            assert_eq!(Digest::from_multihash(&[&bytes[..], &[0]].concat()), None);
        }
        assert_eq!(Digest::from_multihash(&[0x1e, 1, 0]), None, "BLAKE3");
    }
}
