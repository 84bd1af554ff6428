//! Whether two path globs have a path in common, exactly; what a glob means says [`glob`].
//!
//! A path is one that a file can have: segments that are not empty, parted by `/`. Both globs are
//! walked at once, character by character, from each pair of states once: the cost is bounded by
//! the product of their lengths. Where that is too great ([`PAIRS_MAX`]) they are taken to have one.

use super::glob::{At, Pattern, intersect};

/// Most pairs of states that are walked: those of two globs of some 500 characters.
const PAIRS_MAX: usize = 1 << 24;

/// Says why a glob cannot be used for paths of the project; the reason is to be said after it.
///
/// # Errors
/// The reason.
pub fn check(glob: &str) -> Result<(), String> {
    if glob.trim().is_empty() {
        return Err("is empty".to_owned());
    }
    if glob.starts_with('/') || glob.split('/').any(|segment| segment == "..") {
        return Err("leaves the project".to_owned());
    }
    Pattern::read(glob).map(|_| ())
}

/// Says whether two globs have a path in common. One that cannot be read might cover anything.
#[must_use]
pub fn overlaps(left: &str, right: &str) -> bool {
    if are_apart(left, right) {
        return false;
    }
    let both = (Pattern::read(left), Pattern::read(right));
    let (Ok(left), Ok(right)) = both else { return true };
    has_common(&left, &right)
}

/// Says whether a glob of the one list has a path in common with a glob of the other.
#[must_use]
pub fn any_overlap(left: &[String], right: &[String]) -> bool {
    left.iter().any(|one| right.iter().any(|other| overlaps(one, other)))
}

/// Says whether a glob covers a path, in which nothing is a wildcard; or names something below it,
/// as then the path would have to be a file and a folder at once.
#[must_use]
pub fn covers(glob: &str, path: &str) -> bool {
    Pattern::read(glob).map_or(true, |glob| has_common(&glob, &Pattern::of_path(path)))
}

/// Returns the leading whole segments without a wildcard, without a `/` behind: no path that the glob
/// covers lies elsewhere, but for those that are a folder above it. Empty when there is none.
#[must_use]
pub fn literal_prefix(glob: &str) -> &str {
    let mut start = glob;
    while let Some(rest) = start.strip_prefix("./").or_else(|| start.strip_prefix('/')) {
        start = rest;
    }
    let mut end = 0;
    for segment in start.split('/') {
        let is_literal = !segment.contains(['*', '?', '[', ']', '{', '}', '\\']);
        if !is_literal || segment.is_empty() || segment == "." {
            break;
        }
        end += segment.len() + 1;
    }
    start[..end.min(start.len())].trim_end_matches('/')
}

/// Says whether the literal beginnings alone tell two globs apart; the usual case, and cheap.
fn are_apart(left: &str, right: &str) -> bool {
    let (left, right) = (literal_prefix(left), literal_prefix(right));
    let pairs = left.split('/').zip(right.split('/'));
    !left.is_empty() && !right.is_empty() && pairs.into_iter().any(|(a, b)| a != b)
}

/// States of the product that were reached, and those not yet looked at.
struct Reached {
    seen: Vec<u64>,
    todo: Vec<(At, At, bool)>,
}

impl Reached {
    fn add(&mut self, left: &Pattern, right: &Pattern, state: (At, At, bool)) {
        let (l, r, is_segment_start) = state;
        let pair = left.number(l) * right.state_count() + right.number(r);
        let place = pair * 2 + usize::from(is_segment_start);
        let (word, bit) = (place / 64, 1 << (place % 64));
        if self.seen[word] & bit == 0 {
            self.seen[word] |= bit;
            self.todo.push(state);
        }
    }
}

/// Walks the product of two patterns, in search of a pair of states in which both may end. A product
/// that is too great to be walked is taken to have one.
fn has_common(left: &Pattern, right: &Pattern) -> bool {
    let pairs = left.state_count().saturating_mul(right.state_count());
    if pairs > PAIRS_MAX {
        return true;
    }
    let words = (pairs * 2).div_ceil(64);
    let mut reached = Reached { seen: vec![0; words], todo: Vec::new() };
    reached.add(left, right, (left.start(), right.start(), true));
    while let Some((l, r, is_segment_start)) = reached.todo.pop() {
        let from_left = left.moves(l, is_segment_start);
        let from_right = right.moves(r, is_segment_start);
        if from_left.is_end && from_right.is_end && !is_segment_start {
            return true;
        }
        for l in from_left.free {
            reached.add(left, right, (l, r, is_segment_start));
        }
        for r in from_right.free {
            reached.add(left, right, (l, r, is_segment_start));
        }
        if let (Some(l), Some(r), false) = (from_left.slash, from_right.slash, is_segment_start) {
            reached.add(left, right, (l, r, true));
        }
        if let (Some((one, l)), Some((other, r))) = (from_left.letter, from_right.letter)
            && intersect(one, other)
        {
            reached.add(left, right, (l, r, false));
        }
    }
    false
}

#[cfg(test)]
mod tests {
    use globset::GlobBuilder;

    use super::{any_overlap, check, covers, literal_prefix, overlaps};

    #[test]
    fn globs_overlap_where_a_path_fits_both() {
        for (left, right) in [
            ("src", "src/a.rs"),
            ("src/", "src/a/b"),
            ("src", "src/"),
            (".", "a"),
            ("./src//a", "src/a"),
            ("src/**", "src"),
            ("**", "a/b/c"),
            ("**/b/**", "a/**/c"),
            ("src/*.rs", "src/lib.*"),
            ("*a*b*", "*b*a*"),
            ("{src,tests}/**", "tests/it/*.rs"),
            ("a/{b/c,d}", "a/*/c"),
            ("{,x/}a", "a"),
            ("[a-m]x", "[!a-l]?"),
            ("[]]", "]"),
            ("[!a]", "[!b]"),
            ("\\*", "*"),
            ("src/*/gen/", "src/a/gen/b.rs"),
            ("{src,docs/x}", "docs/x/y"),
            ("a/**/b", "a/b"),
            ("a**", "a"),
            ("ä?", "äö"),
            ("a[", "b"),
        ] {
            assert!(overlaps(left, right), "{left} {right}");
            assert!(overlaps(right, left), "{right} {left}");
        }
        for (left, right) in [
            ("src", "src2"),
            ("src/*", "src/a/b"),
            ("src/", "srcs/a"),
            ("*.rs", "*.md"),
            ("*.rs", "src/a.rs"),
            ("a/**", "b/**"),
            ("a?", "a"),
            ("[a-c]", "[d-f]"),
            ("[!a]", "a"),
            ("\\*", "a"),
            ("a/**/b", "a/**/c"),
            ("{a,b}/x", "c/x"),
            ("A", "a"),
            ("a**/c", "a/b/c"),
            ("src/*/gen", "src/a/gen/b.rs"),
            ("**/Cargo.toml", "**/README.md"),
        ] {
            assert!(!overlaps(left, right), "{left} {right}");
            assert!(!overlaps(right, left), "{right} {left}");
        }
    }

    #[test]
    fn lists_overlap_where_one_of_each_does() {
        let list = |globs: &[&str]| globs.iter().map(|g| (*g).to_owned()).collect::<Vec<_>>();
        assert!(any_overlap(&list(&["docs/**", "src/a.rs"]), &list(&["tests", "src/*"])));
        assert!(!any_overlap(&list(&["docs/**", "src/a.rs"]), &list(&["tests", "src/b*"])));
        assert!(!any_overlap(&list(&["**"]), &[]));
    }

    #[test]
    fn wildcards_of_a_path_are_letters() {
        assert!(covers("pages/[[]id].tsx", "pages/[id].tsx"));
        assert!(!covers("pages/i.tsx", "pages/[id].tsx"));
        assert!(covers("pages/*", "pages/{a}*"));
        assert!(covers("src", "src/{a}/b"));
    }

    #[test]
    fn prefixes_are_whole_segments() {
        for (glob, prefix) in [
            ("src/a/*.rs", "src/a"),
            ("src/a.rs", "src/a.rs"),
            ("src/", "src"),
            ("./src/**", "src"),
            ("src/a*", "src"),
            ("a//b", "a"),
            ("*.rs", ""),
            ("{a,b}/c", ""),
            (".", ""),
        ] {
            assert_eq!(literal_prefix(glob), prefix, "{glob}");
        }
    }

    #[test]
    fn bad_globs_say_what_is_wrong() {
        for (glob, why) in [
            (" ", "is empty"),
            ("/etc", "leaves the project"),
            ("a/../b", "leaves the project"),
            ("a[", "does not close its `[`"),
            ("[]", "does not close its `[`"),
            ("[a/b]", "holds a `/` inside `[…]`"),
            ("[z-a]", "holds the range `z-a`, which is empty"),
            ("{a", "does not close its `{`"),
            ("a}", "closes a `{` that is not there"),
            ("a\\", "ends with a `\\` that takes nothing"),
            (&"a".repeat(5000), "is longer than 4096 bytes"),
        ] {
            assert_eq!(check(glob), Err(why.to_owned()), "{glob}");
        }
        for glob in ["src/**", "a..b", "{a,{b,c/d}}/[]-x]", "[a-]", "a,b"] {
            assert_eq!(check(glob), Ok(()), "{glob}");
        }
    }

    /// Twice the longest stars do not blow up: the product is walked once.
    #[test]
    fn long_globs_take_the_product_of_their_lengths() {
        let stars = |end: &str| format!("{}{end}", "*a".repeat(150));
        assert!(overlaps(&stars("b"), &stars("?")));
        assert!(!overlaps(&stars("b"), &stars("c")));
        let forks = |end: &str| format!("{}{end}", "{a,?}".repeat(60));
        assert!(!overlaps(&forks("b"), &forks("c")));
        let deep = |end: &str| format!("{}{end}", "**/a/".repeat(60));
        assert!(!overlaps(&deep("b"), &deep("c")));
    }

    /// Two of them took seconds and 268 MB; to wait for each other is the safe answer.
    #[test]
    fn globs_too_long_to_be_compared_are_taken_to_overlap() {
        let stars = |letter: &str, count: usize| format!("*{letter}").repeat(count);
        assert_eq!(check(&stars("a", 2000)), Ok(()));
        assert!(overlaps(&format!("{}x", stars("a", 2000)), &format!("{}y", stars("b", 2000))));
        assert!(!overlaps(&format!("{}x", stars("a", 200)), &format!("{}y", stars("b", 200))));
        // What begins otherwise needs no comparison.
        assert!(!overlaps(&format!("a/{}", stars("a", 1900)), &format!("b/{}", stars("b", 1900))));
    }

    /// Numbers that look random and are the same each time (xorshift, Marsaglia 2003).
    struct Numbers(u64);

    impl Numbers {
        fn below(&mut self, bound: usize) -> usize {
            self.0 ^= self.0 << 13;
            self.0 ^= self.0 >> 7;
            self.0 ^= self.0 << 17;
            (self.0 % bound as u64) as usize
        }
    }

    const PIECES: [&str; 18] = [
        "a", "b", "a", "b", "/", "/", "/b", "a/", "*", "?", "**/", "/**", "[ab]", "[!a]", "[!b]",
        "{a,b}", "{a/,*}", "{**,b}",
    ];

    fn random_glob(numbers: &mut Numbers) -> String {
        (0..=numbers.below(3)).map(|_| PIECES[numbers.below(PIECES.len())]).collect()
    }

    /// All paths of `a`, `b` and `c` up to so many characters.
    fn paths(chars_max: usize) -> Vec<String> {
        let mut all = Vec::new();
        let mut longest = vec![String::new()];
        for _ in 0..chars_max {
            let grown = longest
                .iter()
                .flat_map(|path| ["a", "b", "c", "/"].map(|letter| format!("{path}{letter}")));
            longest = grown.filter(|path| !path.starts_with('/') && !path.contains("//")).collect();
            all.extend(longest.iter().filter(|path| !path.ends_with('/')).cloned());
        }
        all
    }

    /// The globs without alternations that a glob stands for, by rewriting its text. A `|` parts what
    /// was an alternative from its neighbours: two stars that meet so are not `**`.
    fn expanded(glob: &str) -> Vec<String> {
        let Some(open) = glob.find('{') else { return vec![glob.to_owned()] };
        let close = open + glob[open..].find('}').expect("it is closed, and not nested");
        let parts = glob[open + 1..close].split(',');
        let whole = parts.map(|part| format!("{}|{part}|{}", &glob[..open], &glob[close + 1..]));
        whole.flat_map(|glob| expanded(&glob)).collect()
    }

    /// What a glob without alternations covers, said anew and slowly.
    fn is_covered(glob: &str, path: &str) -> bool {
        let path: Vec<&str> = path.split('/').collect();
        let segments = glob.split('/').map(|segment| segment.trim_matches('|'));
        let mut segments: Vec<&str> = segments.collect();
        if segments.last() == Some(&"") {
            segments.push("**");
        }
        segments.retain(|segment| !segment.is_empty());
        let is_folder = !glob.contains(['*', '?', '[']);
        fits(&segments, &path)
            || is_folder && (1..path.len()).any(|end| fits(&segments, &path[..end]))
    }

    fn fits(segments: &[&str], path: &[&str]) -> bool {
        match (segments, path) {
            ([], path) => path.is_empty(),
            (["**"], path) => !path.is_empty(),
            (["**", more @ ..], path) => (0..=path.len()).any(|n| fits(more, &path[n..])),
            ([segment, more @ ..], [name, below @ ..]) => {
                let segment: Vec<char> = segment.chars().collect();
                let name: Vec<char> = name.chars().collect();
                fits_segment(&segment, &name) && fits(more, below)
            }
            ([_, ..], []) => false,
        }
    }

    fn fits_segment(segment: &[char], name: &[char]) -> bool {
        match (segment, name) {
            ([], name) => name.is_empty(),
            (['|', more @ ..], name) => fits_segment(more, name),
            (['*', more @ ..], name) => (0..=name.len()).any(|n| fits_segment(more, &name[n..])),
            (['?', more @ ..], [_, rest @ ..]) => fits_segment(more, rest),
            (['[', '!', not, ']', more @ ..], [c, rest @ ..]) => {
                c != not && fits_segment(more, rest)
            }
            (['[', 'a', 'b', ']', more @ ..], [c, rest @ ..]) => {
                *c < 'c' && fits_segment(more, rest)
            }
            ([letter, more @ ..], [c, rest @ ..]) => letter == c && fits_segment(more, rest),
            ([_, ..], []) => false,
        }
    }

    /// Few pieces make short globs, and a shortest common path has hardly more characters than both
    /// have letters and slashes; were the paths too short, the test would fail and not pass, as
    /// `overlaps` would then know of a path that the oracle does not. `c` stands for all letters that
    /// no glob names: they all fit the same wildcards.
    #[test]
    fn thousands_of_globs_overlap_as_trying_all_paths_says() {
        let mut numbers = Numbers(0x9e37_79b9_7f4a_7c15);
        let paths = paths(7);
        let globs: Vec<String> = (0..150).map(|_| random_glob(&mut numbers)).collect();
        let is_covered = |glob: &str| {
            let all = expanded(glob);
            let is_covered = |path: &String| all.iter().any(|glob| is_covered(glob, path));
            paths.iter().map(is_covered).collect::<Vec<bool>>()
        };
        let covered: Vec<Vec<bool>> = globs.iter().map(|glob| is_covered(glob)).collect();
        let bits = |covered: &Vec<bool>| -> Vec<u64> {
            let word = |bits: &[bool]| bits.iter().fold(0, |word, bit| word << 1 | u64::from(*bit));
            covered.chunks(64).map(word).collect()
        };
        let bits: Vec<Vec<u64>> = covered.iter().map(bits).collect();
        let mut common_count = 0;
        for (left, of_left) in globs.iter().zip(&bits) {
            for (right, of_right) in globs.iter().zip(&bits) {
                let has_common = of_left.iter().zip(of_right).any(|(one, other)| one & other != 0);
                common_count += usize::from(has_common);
                assert_eq!(overlaps(left, right), has_common, "{left} {right}");
            }
        }
        let pairs = globs.len() * globs.len();
        assert!((pairs / 4..pairs * 3 / 4).contains(&common_count), "{common_count} of {pairs}");
        for (glob, covered) in globs.iter().zip(&covered) {
            for (path, is_covered) in paths.iter().zip(covered).take(40) {
                // A path that is a folder on the way to what the glob names counts too.
                let below = format!("{path}/");
                let is_above = paths.iter().zip(covered).any(|(p, c)| *c && p.starts_with(&below));
                assert!(!is_covered || covers(glob, path), "{glob} {path}");
                assert!(!covers(glob, path) || *is_covered || is_above, "{glob} {path}");
            }
        }
    }

    /// The oracle itself and the globs of `landing.protect` mean the same where both say something.
    #[test]
    fn wildcards_mean_what_globset_says() {
        let mut numbers = Numbers(0x2545_f491_4f6c_dd1d);
        let paths = paths(5);
        let mut tried = 0;
        while tried < 300 {
            let glob = random_glob(&mut numbers);
            let last = glob.rsplit('/').next().unwrap_or_default();
            let is_plain = !last.contains(['*', '?']) || glob.starts_with('/');
            if is_plain || glob.contains("//") || glob.contains(['{', '[']) || glob.contains("***")
            {
                continue;
            }
            tried += 1;
            let matcher = GlobBuilder::new(&glob).literal_separator(true).build().expect(&glob);
            let matcher = matcher.compile_matcher();
            for path in &paths {
                assert_eq!(is_covered(&glob, path), matcher.is_match(path), "{glob} {path}");
            }
        }
    }
}
