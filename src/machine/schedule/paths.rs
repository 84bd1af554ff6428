//! Who changes which paths, found without comparing each with each: globs are looked up by how they
//! begin.

use std::collections::BTreeMap;
use std::ops::Bound::{Excluded, Included};

use crate::machine::id::TaskId;
use crate::machine::overlap::{literal_prefix, overlaps};

/// Globs with who holds them.
#[derive(Debug, Default)]
pub struct Paths<'a> {
    /// In the order in which they came.
    holders: Vec<&'a TaskId>,
    /// Globs without a wildcard, with the places of their holders in `holders`, ascending.
    plain: BTreeMap<&'a str, Vec<usize>>,
    /// Other globs with the places of their holders, ascending, by the folders without a wildcard
    /// that they begin with.
    wild: BTreeMap<&'a str, Vec<(usize, &'a str)>>,
}

impl<'a> Paths<'a> {
    /// Adds globs of one task.
    pub fn add(&mut self, id: &'a TaskId, globs: impl IntoIterator<Item = &'a String>) {
        let place = self.holders.len();
        self.holders.push(id);
        for glob in globs {
            if is_plain(glob) {
                self.plain.entry(glob).or_default().push(place);
            } else {
                self.wild.entry(literal_prefix(glob)).or_default().push((place, glob));
            }
        }
    }

    /// Returns the first other task that holds a path which one of the globs covers. Cost: O(log n),
    /// and the globs that begin like one of these, or that one of these begins like.
    #[must_use]
    pub fn holder(&self, id: &TaskId, globs: &[String]) -> Option<&'a TaskId> {
        let places = globs.iter().filter_map(|glob| self.first(id, glob));
        places.min().map(|place| self.holders[place])
    }

    fn first(&self, id: &TaskId, glob: &str) -> Option<usize> {
        let (is_plain, prefix) = (is_plain(glob), literal_prefix(glob));
        let plain = near(&self.plain, prefix);
        let plain = plain.filter(|(path, _)| is_plain || overlaps(path, glob));
        let plain = plain.filter_map(|(_, places)| self.of_another(id, places.iter().copied()));
        // What begins with a wildcard is near to all.
        let anywhere = self.wild.get_key_value("").filter(|_| !prefix.is_empty());
        let wild = near(&self.wild, prefix).chain(anywhere).filter_map(|(_, held)| {
            let others = held.iter().filter(|(place, _)| self.holders[*place] != id);
            let mut others = others.filter(|(_, other)| overlaps(other, glob));
            others.next().map(|(place, _)| *place)
        });
        plain.chain(wild).min()
    }

    fn of_another(&self, id: &TaskId, mut places: impl Iterator<Item = usize>) -> Option<usize> {
        places.find(|place| self.holders[*place] != id)
    }
}

/// Returns what is held of `path`, of the folders above it, and below it; all for the empty path.
fn near<'m, 'a, T>(
    held: &'m BTreeMap<&'a str, T>,
    path: &str,
) -> impl Iterator<Item = (&'m &'a str, &'m T)> {
    let is_all = path.is_empty();
    let ends = path.match_indices('/').map(|(end, _)| end).chain([path.len()]);
    let above = ends.filter(|end| *end > 0).filter_map(|end| held.get_key_value(&path[..end]));
    let above: Vec<_> = above.collect();
    // What comes after all that begins with the path and a `/`.
    let (from, to) = (format!("{path}/"), format!("{path}0"));
    let below = (Included(from.as_str()), Excluded(to.as_str()));
    let below = (!is_all).then(|| held.range::<str, _>(below));
    let all = is_all.then(|| held.iter());
    above.into_iter().chain(all.into_iter().flatten()).chain(below.into_iter().flatten())
}

/// Returns true when the glob names one path, with all below it, written in its only way.
fn is_plain(glob: &str) -> bool {
    !glob.is_empty() && literal_prefix(glob).len() == glob.len()
}

#[cfg(test)]
mod tests {
    use super::Paths;
    use crate::machine::id::TaskId;
    use crate::machine::overlap::any_overlap;

    const GLOBS: [&str; 20] = [
        "a", "a/", "./a", "a/b", "a/b/c", "a-b", "a0", "b", "b/*", "a/*", "**", "**/c", "a/b/**",
        "\\[x", "[xa]", ".", "a/b/c/*", "./a/b/?", "b/c/**", "a-b/*",
    ];

    #[test]
    fn the_first_holder_is_the_one_that_comparing_all_finds() {
        let ids: Vec<TaskId> = (0..4).map(|n| TaskId::new(format!("T{n}"))).collect();
        let mut draw = 1_u64;
        let mut next = |below: usize| {
            draw = draw.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963);
            (draw >> 33) as usize % below
        };
        let (mut found, mut free) = (0, 0);
        for _ in 0..6000 {
            let mut globs =
                || (0..next(3)).map(|_| GLOBS[next(GLOBS.len())].to_owned()).collect::<Vec<_>>();
            let held: Vec<Vec<String>> = ids.iter().map(|_| globs()).collect();
            let asked = globs();
            let mut paths = Paths::default();
            for (id, globs) in ids.iter().zip(&held) {
                paths.add(id, globs);
            }
            let own = &ids[1];
            let mut all = ids.iter().zip(&held).filter(|(id, _)| *id != own);
            let expected = all.find(|(_, globs)| any_overlap(globs, &asked)).map(|(id, _)| id);
            assert_eq!(paths.holder(own, &asked), expected, "{held:?} {asked:?}");
            *(if expected.is_some() { &mut found } else { &mut free }) += 1;
        }
        assert!(found > 500 && free > 500, "{found} {free}");
    }

    /// What a task asks for is held against what begins like it, not against all that is held.
    #[test]
    fn a_lookup_among_thousands_of_wildcards_compares_few() {
        let ids: Vec<TaskId> = (0..20_000).map(|n| TaskId::new(format!("T{n}"))).collect();
        let globs = |n: usize| vec![format!("src/m{n}/**"), "Cargo.lock".to_owned()];
        let held: Vec<Vec<String>> = (0..ids.len()).map(globs).collect();
        let mut paths = Paths::default();
        for (id, globs) in ids.iter().zip(&held) {
            paths.add(id, &globs[..1]);
        }
        // Held against each other they are 200 million pairs.
        for (id, globs) in ids.iter().zip(&held) {
            assert_eq!(paths.holder(id, globs), None);
        }
        let asked = ["src/m19999/lib.rs".to_owned()];
        assert_eq!(paths.holder(&ids[0], &asked), Some(&ids[19_999]));
    }
}
