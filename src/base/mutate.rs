//! A small fuzzer for tests of binary decoders: the same mutations on every run, so a failure can be repeated.

/// Calls `check` with `rounds` mutated copies of each seed.
pub(crate) fn mutations(seeds: &[&[u8]], rounds: usize, mut check: impl FnMut(&[u8])) {
    let mut random = Xorshift(0x9e37_79b9_7f4a_7c15);
    for seed in seeds {
        for _ in 0..rounds {
            let mut bytes = seed.to_vec();
            for _ in 0..=random.below(4) {
                mutate(&mut bytes, &mut random);
            }
            check(&bytes);
        }
    }
}

fn mutate(bytes: &mut Vec<u8>, random: &mut Xorshift) {
    let at = random.below(bytes.len() + 1);
    let end = (at + 1 + random.below(16)).min(bytes.len());
    match random.below(7) {
        0 => bytes.truncate(at),
        1 => bytes.insert(at, random.next() as u8),
        2 => bytes.splice(at..at, AWKWARD[random.below(AWKWARD.len())].iter().copied()).for_each(drop),
        3 => drop(bytes.drain(at.min(end)..end)),
        4 => {
            let copy = bytes[at.min(end)..end].to_vec();
            bytes.splice(at..at, copy).for_each(drop);
        }
        // Lengths and kinds mostly stand near the front.
        5 => {
            if let Some(byte) = bytes.get_mut(at / 4) {
                *byte = random.next() as u8;
            }
        }
        _ => {
            if let Some(byte) = bytes.get_mut(at) {
                *byte ^= 1 << random.below(8);
            }
        }
    }
}

/// Marsaglia's xorshift with 64 bits: repeatable, and good enough to pick bytes.
pub(crate) struct Xorshift(pub(crate) u64);

impl Xorshift {
    pub(crate) fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    /// Below `n`; 0 for 0.
    pub(crate) fn below(&mut self, n: usize) -> usize {
        (self.next() % n.max(1) as u64) as usize
    }
}

/// Varints at their edges, CBOR heads that promise much, tags, breaks.
const AWKWARD: [&[u8]; 14] = [
    &[0x00],
    &[0x7f],
    &[0x80],
    &[0x80, 0x00],
    &[0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x01],
    &[0xff, 0xff, 0xff, 0xff, 0x0f],
    &[0x80, 0x80, 0x80, 0x01],
    &[0x9f],
    &[0xbf],
    &[0xff],
    &[0x9b, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff],
    &[0xbb, 0x7f, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff],
    &[0x5b, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff],
    &[0xd8, 0x2a],
];
