//! The id map that a snapshot is unpacked with: which ids of the host stand on disk for those that its layer names.

use std::fs;

use serde::{Deserialize, Serialize};

use crate::oci::Digest;

/// As many digits of a map's digest stand in the names of directories.
const TAG_DIGITS: usize = 8;

/// First id inside, first id outside, and how many (`man 7 user_namespaces`), sorted and without seams.
type Ranges = Vec<[u32; 3]>;

/// A map of user and group ids.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(in crate::storage) struct IdMap {
    uids: Ranges,
    gids: Ranges,
}

impl IdMap {
    /// The map of this process, as far as it is used: ids below `mapped_ids`. With one id everything that is made is the
    /// user's own, within a namespace or not.
    pub(in crate::storage) fn here(mapped_ids: u32) -> Self {
        let own = [rustix::process::geteuid().as_raw(), rustix::process::getegid().as_raw()];
        let [uids, gids] = ["/proc/self/uid_map", "/proc/self/gid_map"].map(|path| {
            let text = fs::read_to_string(path).unwrap_or_default();
            // Without /proc there is one map for all.
            if text.trim().is_empty() { vec![[0, 0, u32::MAX]] } else { parse(&text) }
        });
        if mapped_ids <= 1 {
            let one = |ranges: &Ranges, id: u32| vec![[0, outside(ranges, id).unwrap_or(id), 1]];
            return Self { uids: one(&uids, own[0]), gids: one(&gids, own[1]) };
        }
        Self { uids: clip(&uids, mapped_ids), gids: clip(&gids, mapped_ids) }
    }

    /// What tells it from other maps in the name of a directory.
    pub(super) fn tag(&self) -> String {
        let text = format!("{:?} {:?}", self.uids, self.gids);
        Digest::sha256(text).hex().chars().take(TAG_DIGITS).collect()
    }

    /// Whether all ids up to `highest` stand for the same in both.
    pub(super) fn agrees_with(&self, other: &Self, highest: u32) -> bool {
        let same = |ours: &Ranges, theirs: &Ranges| {
            let end = highest.saturating_add(1);
            let ours = clip(ours, end);
            let covered: u64 = ours.iter().map(|range| u64::from(range[2])).sum();
            covered == u64::from(end) && ours == clip(theirs, end)
        };
        same(&self.uids, &other.uids) && same(&self.gids, &other.gids)
    }
}

/// Whether a text is what [`IdMap::tag`] makes.
pub(in crate::storage) fn is_tag(text: &str) -> bool {
    text.len() == TAG_DIGITS && text.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b))
}

fn parse(text: &str) -> Ranges {
    let line = |line: &str| {
        let mut words = line.split_whitespace().map(str::parse);
        let mut next = || words.next()?.ok();
        Some([next()?, next()?, next()?])
    };
    clip(&text.lines().filter_map(line).collect::<Ranges>(), u32::MAX)
}

/// What lies below `end`, sorted, ranges that go on where others end joined with them.
fn clip(ranges: &[[u32; 3]], end: u32) -> Ranges {
    let mut sorted: Ranges = ranges.iter().copied().filter(|range| range[0] < end && range[2] > 0).collect();
    sorted.sort_unstable();
    let mut joined: Ranges = Vec::new();
    for [inside, outside, count] in sorted {
        let count = count.min(end - inside);
        match joined.last_mut() {
            Some(last)
                if last[0].checked_add(last[2]) == Some(inside)
                    && last[1].checked_add(last[2]) == Some(outside) =>
            {
                last[2] = last[2].saturating_add(count);
            }
            _ => joined.push([inside, outside, count]),
        }
    }
    joined
}

fn outside(ranges: &[[u32; 3]], id: u32) -> Option<u32> {
    ranges.iter().find_map(|[inside, outside, count]| {
        let at = id.checked_sub(*inside).filter(|at| at < count)?;
        outside.checked_add(at)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn map(text: &str) -> IdMap {
        IdMap { uids: parse(text), gids: parse(text) }
    }

    #[test]
    fn maps_agree_as_far_as_their_ids_stand_for_the_same() {
        let root = map("0 0 4294967295");
        let full = map("0 1000 1\n1 100000 65536");
        let single = map("0 1000 1");
        let grown = map("0 1000 1\n1 100000 1000\n1001 101000 131072");
        let moved = map("0 1000 1\n1 200000 65536");
        for (a, b, highest, agree) in [
            (&full, &full, 65536, true),
            (&full, &full, 65537, false),
            (&single, &full, 0, true),
            (&single, &full, 1, false),
            (&full, &grown, 65536, true),
            (&full, &grown, 70000, false),
            (&full, &moved, 0, true),
            (&full, &moved, 1, false),
            (&root, &full, 0, false),
            (&root, &root, u32::MAX - 2, true),
        ] {
            assert_eq!(a.agrees_with(b, highest), agree, "{a:?} {b:?} {highest}");
            assert_eq!(b.agrees_with(a, highest), agree, "{b:?} {a:?} {highest}");
        }
        let gap = IdMap { uids: parse("0 0 10\n20 20 5"), ..root.clone() };
        assert!(
            gap.agrees_with(&root, 9) && !gap.agrees_with(&gap, 21),
            "an id without a place is on no disk"
        );
        assert_ne!(full.tag(), moved.tag());
        assert!(is_tag(&full.tag()) && !is_tag("1234567") && !is_tag("1234567G"));
    }

    #[test]
    fn with_one_id_it_does_not_matter_from_where_one_looks() {
        let one = IdMap::here(1);
        assert_eq!((one.uids.len(), one.uids[0][0], one.uids[0][2]), (1, 0, 1));
        let few = IdMap::here(10);
        assert!(few.uids.iter().all(|range| range[0] + range[2] <= 10), "{few:?}");
        let bytes = serde_json::to_vec(&few).unwrap();
        assert_eq!(serde_json::from_slice::<IdMap>(&bytes).unwrap(), few);
    }
}
