//! Where each of many names stands: looked up millions of times, in one go.
//!
//! Names are told apart as ids of tasks are: two that differ in letter case only are not allowed
//! beside each other, so the table is by the name without its case, and a name is found when it is
//! exactly the one that stands there. A slot holds the first bytes of its name: one look at memory
//! far away for a short name, and names are short.

use std::borrow::Cow;

/// The place of a name that is not there.
pub(super) const UNKNOWN: u32 = u32::MAX;

/// Bytes of a name in its slot.
const HEAD_BYTES: usize = 16;

/// Names that are looked up together, so that their slots come from memory at once.
const TOGETHER: usize = 32;

/// An open-addressed table, at most half full.
pub(super) struct Places {
    /// A power of two of them.
    slots: Vec<Slot>,
}

#[derive(Clone, Copy)]
struct Slot {
    head: [u64; 2],
    /// [`UNKNOWN`] when the slot is free.
    place: u32,
    bytes: u32,
}

/// A name, ready to be looked up.
#[derive(Clone, Copy, Default)]
struct Key {
    hash: u64,
    head: [u64; 2],
    bytes: u32,
}

/// The bit by which ASCII letters of the two cases differ.
const CASE: u64 = 0x2020_2020_2020_2020;

impl Key {
    fn of(name: &str) -> Self {
        let bytes = name.as_bytes();
        let mut padded = [0; HEAD_BYTES];
        let head = bytes.len().min(HEAD_BYTES);
        padded[..head].copy_from_slice(&bytes[..head]);
        let (words, _) = padded.as_chunks::<8>();
        let head = [u64::from_le_bytes(words[0]), u64::from_le_bytes(words[1])];
        let mut hash = mix(mix(bytes.len() as u64, head[0] | CASE), head[1] | CASE);
        let (words, rest) = bytes.get(HEAD_BYTES..).unwrap_or_default().as_chunks::<8>();
        for word in words {
            hash = mix(hash, u64::from_le_bytes(*word) | CASE);
        }
        for byte in rest {
            hash = mix(hash, u64::from(*byte) | CASE);
        }
        Self { hash, head, bytes: u32::try_from(bytes.len()).unwrap_or(u32::MAX) }
    }

    /// Says whether a slot may hold the name in some letter case, and whether just so.
    fn fits(&self, slot: &Slot) -> (bool, bool) {
        let is_like = |at: usize| self.head[at] | CASE == slot.head[at] | CASE;
        let is_near = self.bytes == slot.bytes && is_like(0) && is_like(1);
        (is_near, is_near && self.head == slot.head)
    }
}

/// Mixes by one multiplication with the golden ratio as a fraction of 2⁶⁴ (Knuth, TAOCP 3, 6.4). No
/// guard against chosen names, which whoever writes a backlog would choose against himself.
fn mix(hash: u64, word: u64) -> u64 {
    const FACTOR: u64 = 0x9e37_79b9_7f4a_7c15;
    let product = u128::from((hash ^ word).wrapping_add(FACTOR)) * u128::from(FACTOR);
    (product as u64) ^ ((product >> 64) as u64)
}

impl Places {
    /// Takes all names; of those that differ in letter case at most, the first. Returns the places of
    /// the others too.
    ///
    /// # Panics
    /// When there are 2³² names.
    pub(super) fn of(names: &[Cow<'_, str>]) -> (Self, Vec<u32>) {
        assert!(u32::try_from(names.len()).is_ok_and(|count| count < UNKNOWN), "fewer than 2^32");
        let free = Slot { head: [0; 2], place: UNKNOWN, bytes: 0 };
        let count = (names.len() * 2).next_power_of_two();
        let mut places = Self { slots: vec![free; count] };
        let mut twice = Vec::new();
        let mut keys = [Key::default(); TOGETHER];
        for (chunk, first) in names.chunks(TOGETHER).zip((0..).step_by(TOGETHER)) {
            places.prepare(chunk, &mut keys);
            for ((name, key), place) in chunk.iter().zip(&keys).zip(first..) {
                let slot = places.slot(name, key, names);
                if places.slots[slot].place == UNKNOWN {
                    places.slots[slot] = Slot { head: key.head, place, bytes: key.bytes };
                } else {
                    twice.push(place);
                }
            }
        }
        (places, twice)
    }

    /// Returns where each name stands in `names`, of which the table is made; [`UNKNOWN`] where
    /// none is written just so.
    pub(super) fn find(&self, wanted: &[Cow<'_, str>], names: &[Cow<'_, str>]) -> Vec<u32> {
        let mut found = Vec::with_capacity(wanted.len());
        let mut keys = [Key::default(); TOGETHER];
        for chunk in wanted.chunks(TOGETHER) {
            self.prepare(chunk, &mut keys);
            for (name, key) in chunk.iter().zip(&keys) {
                let slot = &self.slots[self.slot(name, key, names)];
                let is_same = key.fits(slot).1 && slot.place != UNKNOWN;
                let is_short = name.len() <= HEAD_BYTES;
                let is_same = is_same && (is_short || names[slot.place as usize] == *name);
                found.push(if is_same { slot.place } else { UNKNOWN });
            }
        }
        found
    }

    /// Makes the keys of some names, and has their slots fetched: none of these loads waits for another.
    fn prepare(&self, names: &[Cow<'_, str>], keys: &mut [Key; TOGETHER]) {
        let mut places = 0;
        for (key, name) in keys.iter_mut().zip(names) {
            *key = Key::of(name);
            places ^= self.slots[self.home(key)].place;
        }
        std::hint::black_box(places);
    }

    fn home(&self, key: &Key) -> usize {
        key.hash as usize & (self.slots.len() - 1)
    }

    /// Returns the slot of the name in any letter case, or the free one where it belongs.
    fn slot(&self, name: &str, key: &Key, names: &[Cow<'_, str>]) -> usize {
        let mut at = self.home(key);
        loop {
            let slot = &self.slots[at];
            let (is_near, is_same) = key.fits(slot);
            let is_found = slot.place == UNKNOWN
                || is_same && name.len() <= HEAD_BYTES
                || is_near && names[slot.place as usize].eq_ignore_ascii_case(name);
            if is_found {
                return at;
            }
            at = (at + 1) & (self.slots.len() - 1);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::borrow::Cow;
    use std::collections::BTreeSet;

    use super::{Key, Places, UNKNOWN};

    fn cows<T: AsRef<str>>(names: &[T]) -> Vec<Cow<'_, str>> {
        names.iter().map(|name| Cow::Borrowed(name.as_ref())).collect()
    }

    #[test]
    fn names_are_found_as_they_are_written() {
        let long = "x".repeat(40);
        let names =
            ["a", "B", "", "sixteen-letters-", "sixteen-letters-b", &long, "A", "b_", "b\u{7f}"];
        let names = cows(&names);
        let (places, twice) = Places::of(&names);
        assert_eq!(twice, [6]);
        let upper = "X".repeat(40);
        let wanted = [
            "b",
            "B",
            "sixteen-letters-B",
            "sixteen-letters-b",
            "b_",
            "b\u{7f}",
            &long,
            &upper,
            "a\0",
        ];
        let found = places.find(&cows(&wanted), &names);
        assert_eq!(found, [UNKNOWN, 1, UNKNOWN, 4, 7, 8, 5, UNKNOWN, UNKNOWN]);
        let (none, _) = Places::of(&[]);
        assert_eq!(none.find(&names, &[]), [UNKNOWN; 9]);
    }

    #[test]
    fn numbered_names_are_spread() {
        let homes: BTreeSet<u64> =
            (0..65_536).map(|n| Key::of(&format!("TASK-{n:07}")).hash & 0xffff).collect();
        // So many balls in as many boxes leave 1/e of them empty.
        assert!(homes.len() > 40_000, "{} of 65536", homes.len());
    }

    #[test]
    fn every_name_is_found_among_many() {
        let names: Vec<String> = (0..20_000).map(|n| format!("task-{}-{n}", n % 7)).collect();
        let names = cows(&names);
        let (places, twice) = Places::of(&names);
        assert!(twice.is_empty());
        assert!(places.find(&names, &names).into_iter().eq(0..20_000));
    }
}
