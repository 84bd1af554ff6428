//! What a branch has changed so far, as path globs: by that a task is judged which names no paths.

use std::collections::BTreeSet;

use super::glob;
use super::overlap;
use super::task::Task;

/// Most globs kept of one branch; beyond, files are gathered into the folders they lie in.
pub const CHANGED_MAX: usize = 256;

/// Deepest folders that files are gathered into.
const DEPTH_MAX: usize = 16;

/// Returns globs that cover the paths, sorted, at most [`CHANGED_MAX`]: each path for itself, else
/// the deepest folders that are few enough, else everything.
#[must_use]
pub fn globs(paths: &[String]) -> Vec<String> {
    let paths: BTreeSet<&str> = paths.iter().map(String::as_str).collect();
    if paths.len() <= CHANGED_MAX {
        return paths.into_iter().map(glob::literal).collect();
    }
    for depth in (1..=DEPTH_MAX).rev() {
        let gathered: BTreeSet<String> = paths.iter().map(|path| gather(path, depth)).collect();
        if gathered.len() <= CHANGED_MAX {
            return gathered.into_iter().collect();
        }
    }
    vec!["**".to_owned()]
}

/// Returns the folder that `path` lies in, at most `depth` folders deep, with all below it.
fn gather(path: &str, depth: usize) -> String {
    let folders = path.matches('/').count();
    match path.match_indices('/').nth(depth.min(folders).wrapping_sub(1)) {
        Some((end, _)) if folders > 0 => format!("{}/**", glob::literal(&path[..end])),
        Some(_) | None => glob::literal(path),
    }
}

/// Returns how many of the globs of one branch may cover a path of the other's; both sorted.
#[must_use]
pub fn common(left: &Task, right: &Task) -> usize {
    let is_folder = |glob: &&String| glob.ends_with("/**") || *glob == "**";
    let same = left.changed.iter().filter(|glob| right.changed.binary_search(glob).is_ok()).count();
    if same > 0 || !left.changed.iter().chain(&right.changed).any(|glob| is_folder(&glob)) {
        return same;
    }
    usize::from(overlap::any_overlap(&left.changed, &right.changed))
}

#[cfg(test)]
mod tests {
    use super::{CHANGED_MAX, globs};
    use crate::machine::overlap::{covers, overlaps};

    fn paths(count: usize, name: impl Fn(usize) -> String) -> Vec<String> {
        (0..count).map(name).collect()
    }

    #[test]
    fn few_paths_are_kept_as_they_are() {
        let odd = "a[b]{c,d}*?\\e f";
        let kept = globs(&["src/b".into(), odd.into(), "src/a".into(), "src/b".into()]);
        assert_eq!(kept.len(), 3);
        assert_eq!(kept[1..], ["src/a", "src/b"]);
        assert!(covers(&kept[0], odd) && !covers(&kept[0], "abc"), "{kept:?}");
        assert!(overlaps(&kept[0], &kept[0]) && !overlaps(&kept[0], "src/**"));
    }

    #[test]
    fn many_paths_become_the_deepest_folders_that_are_few() {
        let many = paths(3000, |n| format!("src/{}/{}/{n}", n % 200, n % 3000 / 4));
        let kept = globs(&many);
        assert_eq!(kept.len(), 200);
        assert!(kept.contains(&"src/7/**".to_owned()), "{kept:?}");
        let mixed: Vec<String> = many.iter().cloned().chain(["README".into()]).collect();
        assert!(globs(&mixed).contains(&"README".to_owned()));
        for path in many.iter().step_by(97) {
            assert!(kept.iter().any(|glob| covers(glob, path)), "{path}");
        }
    }

    #[test]
    fn where_folders_do_not_help_all_is_taken() {
        assert_eq!(globs(&paths(CHANGED_MAX, |n| format!("{n:04}"))).len(), CHANGED_MAX);
        assert_eq!(globs(&paths(CHANGED_MAX + 1, |n| format!("{n:04}"))), ["**"]);
        assert_eq!(globs(&paths(CHANGED_MAX + 1, |n| format!("{n}/a"))), ["**"]);
    }
}
