//! Where an entry stands in the trie.

use crate::base::{PackageUrl, Sha256};

use super::MOST_DEPTH;

/// Bytes of a path that the package decides: its files are together, and any number of them can be split still.
///
/// Three bytes tell 16 million packages apart; two that agree only share a subtree.
pub(super) const PACKAGE_BYTES: usize = 3;

/// An entry's place: the first three bytes of its package's hash, then 29 of its own.
///
/// Four bits of it, the high ones of a byte first, lead from a node to a child. Entries are built and kept in its
/// order.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Path(pub [u8; 32]);

impl Path {
    /// Of an entry's key: SHA-256 of the package URL without its version, and of the whole, a zero byte, and the file.
    pub fn of(purl: &PackageUrl, file: &str) -> Self {
        let mut path = Self::of_package(&purl.package());
        let own = Sha256::of(&[purl.as_str().as_bytes(), &[0], file.as_bytes()].concat());
        path.0[PACKAGE_BYTES..].copy_from_slice(&own.0[..32 - PACKAGE_BYTES]);
        path
    }

    /// What is common to all entries of a package (a URL without version): zeros follow.
    pub(super) fn of_package(package: &PackageUrl) -> Self {
        let hash = Sha256::of(package.as_str().as_bytes());
        let mut path = [0; 32];
        path[..PACKAGE_BYTES].copy_from_slice(&hash.0[..PACKAGE_BYTES]);
        Self(path)
    }

    /// Which child it takes at a node of this depth.
    pub(super) fn step(&self, depth: usize) -> u8 {
        self.0[depth / 2] >> (4 * (1 - depth % 2)) & 0xf
    }

    /// Whether both take the same way down to this depth.
    pub(super) fn agrees(&self, other: &Self, depth: usize) -> bool {
        let whole = depth / 2;
        self.0[..whole] == other.0[..whole]
            && (depth.is_multiple_of(2) || self.step(depth - 1) == other.step(depth - 1))
    }
}

impl std::fmt::Debug for Path {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        Sha256(self.0).fmt(f)
    }
}

/// A node's place: how deep it is and the steps that lead there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Place {
    steps: Path,
    pub(super) depth: usize,
}

impl Place {
    pub(super) const ROOT: Self = Self { steps: Path([0; 32]), depth: 0 };

    /// Of a child; `None` when it is deeper than any may be.
    pub(super) fn below(mut self, step: u8) -> Option<Self> {
        if self.depth >= MOST_DEPTH {
            return None;
        }
        self.steps.0[self.depth / 2] |= step << (4 * (1 - self.depth % 2));
        self.depth += 1;
        Some(self)
    }

    /// Whether an entry belongs at or below it.
    pub(super) fn holds(&self, path: &Path) -> bool {
        self.steps.agrees(path, self.depth)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_of_a_package_are_together() {
        let purl = |text| PackageUrl::parse(text).unwrap();
        let one = Path::of(&purl("pkg:pypi/six@1.17.0"), "six-1.17.0.tar.gz");
        let two = Path::of(&purl("pkg:pypi/six@1.16.0"), "six-1.16.0.tar.gz");
        let other = Path::of(&purl("pkg:pypi/idna@3.10"), "idna-3.10.tar.gz");
        assert_eq!(one.0[..3], Sha256::of(b"pkg:pypi/six").0[..3]);
        let own = Sha256::of(b"pkg:pypi/six@1.17.0\0six-1.17.0.tar.gz");
        assert_eq!(one.0[3..], own.0[..29]);
        assert!(one.agrees(&two, 6) && !one.agrees(&two, 32) && !one.agrees(&other, 6));
        let place = (0..5).try_fold(Place::ROOT, |place, depth| place.below(one.step(depth))).unwrap();
        assert!(place.holds(&one) && place.holds(&two) && !place.holds(&other));
        assert!(
            (0..MOST_DEPTH).try_fold(Place::ROOT, |place, _| place.below(0xf)).unwrap().below(0).is_none()
        );
    }

    #[test]
    fn steps() {
        let mut path = Path([0; 32]);
        path.0[..2].copy_from_slice(&[0xab, 0xcd]);
        assert_eq!([0, 1, 2, 3, 4].map(|depth| path.step(depth)), [0xa, 0xb, 0xc, 0xd, 0]);
        let mut other = path;
        other.0[1] = 0xce;
        assert!(path.agrees(&other, 0) && path.agrees(&other, 3) && !path.agrees(&other, 4));
    }
}
