//! A small fuzzer for tests: the same mutations on every run, so a failure can be repeated.

/// Calls `check` with `rounds` mutated copies of each seed.
pub(super) fn mutations(seeds: &[&[u8]], rounds: usize, mut check: impl FnMut(&[u8])) {
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
    match random.below(6) {
        0 => bytes.truncate(at),
        1 => bytes.insert(at, random.next() as u8),
        2 => bytes.splice(at..at, AWKWARD[random.below(AWKWARD.len())].bytes()).for_each(drop),
        3 => drop(bytes.drain(at.min(end)..end)),
        4 => {
            let copy = bytes[at.min(end)..end].to_vec();
            bytes.splice(at..at, copy).for_each(drop);
        }
        _ => {
            if let Some(byte) = bytes.get_mut(at) {
                *byte ^= 1 << random.below(8);
            }
        }
    }
}

struct Xorshift(u64);

impl Xorshift {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    fn below(&mut self, n: usize) -> usize {
        (self.next() % n.max(1) as u64) as usize
    }
}

const AWKWARD: [&str; 18] = [
    "%", "%2", "%2f", "%00", "%ff", "..", "/", "\\", "\"", "&#x0;", "<", ">", "{", "[", "é", "\u{feff}",
    "-1", "1e999",
];
