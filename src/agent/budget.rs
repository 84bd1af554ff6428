//! How several texts share a bounded room: one after the other is cut, in a fixed order.
//!
//! Pure, and knows nothing of what the texts are.

use super::passage::{Passage, WHOLE};

/// A text that may be cut.
pub(super) struct Section<'a> {
    /// Never cut to less, in bytes.
    pub(super) floor: usize,
    /// Makes it, at most so many bytes long where that is at least the floor.
    pub(super) make: &'a dyn Fn(usize) -> Passage,
}

/// Returns the sections in at most `room` bytes together, which the floors must fit in.
///
/// They are cut in the order given: the next one only when all before it are at their floors.
pub(super) fn fit(sections: &[Section<'_>], room: usize) -> Vec<Passage> {
    let mut made: Vec<Passage> = sections.iter().map(|section| (section.make)(WHOLE)).collect();
    let mut total: usize = made.iter().map(|made| made.text.len()).sum();
    for (section, made) in sections.iter().zip(&mut made) {
        if total <= room {
            break;
        }
        let others = total - made.text.len();
        let bytes_max = room.saturating_sub(others).max(section.floor);
        if made.text.len() > bytes_max {
            *made = (section.make)(bytes_max);
            total = others + made.text.len();
        }
    }
    made
}

#[cfg(test)]
mod tests {
    use super::{Section, fit};
    use crate::agent::passage::{Passage, WHOLE, markdown};

    /// Lengths of sections of these lengths and floors in so much room.
    fn check(sections: &[(usize, usize)], room: usize, expected: &[usize]) {
        let makes: Vec<_> = sections
            .iter()
            .map(|(length, _)| {
                move |bytes_max: usize| {
                    let kept = bytes_max.min(*length);
                    Passage { text: "x".repeat(kept), cut_bytes: length - kept }
                }
            })
            .collect();
        let sections = sections.iter().zip(&makes);
        let sections: Vec<_> = sections
            .map(|((_, floor), make)| Section { floor: *floor, make: make as &dyn Fn(usize) -> _ })
            .collect();
        let made = fit(&sections, room);
        let lengths: Vec<usize> = made.iter().map(|made| made.text.len()).collect();
        assert_eq!(lengths, expected);
    }

    #[test]
    fn what_fits_stays_whole() {
        check(&[(10, 5), (20, 5)], 30, &[10, 20]);
        check(&[], 0, &[]);
    }

    #[test]
    fn the_next_is_cut_only_when_those_before_are_at_their_floors() {
        check(&[(10, 5), (20, 5)], 29, &[9, 20]);
        check(&[(10, 5), (20, 5)], 25, &[5, 20]);
        check(&[(10, 5), (20, 5)], 24, &[5, 19]);
        check(&[(10, 5), (20, 5), (90, 1)], 11, &[5, 5, 1]);
        check(&[(3, 5), (20, 5), (90, 1)], 11, &[3, 5, 3]);
    }

    #[test]
    fn texts_of_any_kind_and_length_fit() {
        let kinds = ["word\n", "##status:\n", "```\n", "é🦀", "`", "> x\n\n"];
        for (round, kind) in kinds.iter().cycle().enumerate().take(12) {
            let text = |times: usize| kind.repeat(times * (round * 37 % 101));
            let texts = [text(1), text(50), text(300)];
            let makes = texts.each_ref().map(|text| move |max: usize| markdown(text, max));
            let sections = makes.each_ref().map(|make| Section { floor: 500, make });
            for room in [1500, 2000, 9000, 40_000] {
                let made = fit(&sections, room);
                let total: usize = made.iter().map(|made| made.text.len()).sum();
                assert!(total <= room, "{kind:?} {total} {room}");
                let is_cut = made.iter().any(|made| made.cut_bytes > 0);
                let whole: usize = texts.iter().map(|text| markdown(text, WHOLE).text.len()).sum();
                assert_eq!(is_cut, whole > room, "{kind:?} {whole} {room}");
            }
        }
    }
}
