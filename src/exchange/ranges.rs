//! A set of item numbers, kept as runs: peers have long stretches of a file, so a set of 65,536 items is a few words.

use std::ops::Range;

/// A set of numbers as sorted runs that neither touch nor overlap.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Ranges {
    runs: Vec<Range<u32>>,
    count: u32,
}

impl Ranges {
    /// Adds all of `range`. A range that is empty or upside down adds nothing.
    pub fn insert(&mut self, range: Range<u32>) {
        if range.is_empty() {
            return;
        }
        // Those that overlap or touch it melt into one.
        let from = self.runs.partition_point(|run| run.end < range.start);
        let to = self.runs.partition_point(|run| run.start <= range.end).max(from);
        let melted = &self.runs[from..to];
        let start = melted.first().map_or(range.start, |run| run.start.min(range.start));
        let end = melted.last().map_or(range.end, |run| run.end.max(range.end));
        self.count -= melted.iter().map(|run| run.end - run.start).sum::<u32>();
        self.count += end - start;
        self.runs.splice(from..to, std::iter::once(start..end));
    }

    /// Takes all of `range` out.
    pub fn remove(&mut self, range: Range<u32>) {
        if range.is_empty() {
            return;
        }
        let from = self.runs.partition_point(|run| run.end <= range.start);
        let to = self.runs.partition_point(|run| run.start < range.end).max(from);
        let cut = &self.runs[from..to];
        let (Some(first), Some(last)) = (cut.first(), cut.last()) else { return };
        let (left, right) = (first.start..range.start, range.end..last.end);
        self.count -= cut.iter().map(|run| run.end - run.start).sum::<u32>();
        let rest = [left, right].into_iter().filter(|run| !run.is_empty());
        self.count += rest.clone().map(|run| run.end - run.start).sum::<u32>();
        self.runs.splice(from..to, rest);
    }

    /// Takes everything out.
    pub fn clear(&mut self) {
        *self = Self::default();
    }

    /// Whether `n` is in the set.
    pub fn contains(&self, n: u32) -> bool {
        self.run_at(n).is_some_and(|run| run.start <= n)
    }

    /// The first number of the set that is not below `n`.
    pub fn next_in(&self, n: u32) -> Option<u32> {
        self.run_at(n).map(|run| run.start.max(n))
    }

    /// The first number that is not in the set and not below `n`.
    pub fn next_out(&self, n: u32) -> u32 {
        self.run_at(n).filter(|run| run.start <= n).map_or(n, |run| run.end)
    }

    /// How many numbers are in the set.
    pub fn count(&self) -> u32 {
        self.count
    }

    /// How many numbers of `range` are in the set.
    pub fn count_in(&self, range: Range<u32>) -> u32 {
        if range.is_empty() {
            return 0;
        }
        let from = self.runs.partition_point(|run| run.end <= range.start);
        let inside = self.runs[from..].iter().take_while(|run| run.start < range.end);
        inside.map(|run| run.end.min(range.end) - run.start.max(range.start)).sum()
    }

    /// The runs, in order.
    pub fn runs(&self) -> &[Range<u32>] {
        &self.runs
    }

    /// The run that holds `n`, or the next one.
    fn run_at(&self, n: u32) -> Option<&Range<u32>> {
        self.runs.get(self.runs.partition_point(|run| run.end <= n))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn like_a_plain_set() {
        let mut random = 0x9e37_79b9_7f4a_7c15_u64;
        let mut below = |n: u64| {
            random ^= random << 13;
            random ^= random >> 7;
            random ^= random << 17;
            (random % n) as u32
        };
        for _ in 0..50 {
            let (mut ranges, mut plain) = (Ranges::default(), [false; 64]);
            for _ in 0..60 {
                let (from, to) = (below(64), below(65));
                let (insert, spot) = (below(3) > 0, below(64));
                match insert {
                    true => ranges.insert(from..to),
                    false => ranges.remove(from..to),
                }
                (from..to).for_each(|n| plain[n as usize] = insert);
                let inside = |n: u32| plain[n as usize];
                (0..64).for_each(|n| assert_eq!(ranges.contains(n), inside(n)));
                assert_eq!(ranges.count() as usize, plain.iter().filter(|b| **b).count());
                assert_eq!(ranges.next_in(spot), (spot..64).find(|n| inside(*n)));
                assert_eq!(ranges.next_out(spot), (spot..64).find(|n| !inside(*n)).unwrap_or(64));
                let part = (from..to).filter(|n| inside(*n)).count();
                assert_eq!(ranges.count_in(from..to) as usize, part);
                let apart = ranges.runs().windows(2).all(|w| w[0].end < w[1].start);
                assert!(apart && ranges.runs().iter().all(|r| r.start < r.end), "{ranges:?}");
            }
        }
    }

    #[test]
    fn the_ends_of_the_numbers() {
        let mut ranges = Ranges::default();
        ranges.insert(0..u32::MAX);
        ranges.remove(7..8);
        assert_eq!((ranges.count(), ranges.next_out(8)), (u32::MAX - 1, u32::MAX));
        #[expect(clippy::reversed_empty_ranges)]
        ranges.insert(9..3);
        assert_eq!(ranges.runs(), [0..7, 8..u32::MAX]);
    }
}
