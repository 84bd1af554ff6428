//! What is acted upon stands in the journal before: records against what they allow, whichever
//! thread or process does it.

use std::collections::BTreeMap;

use crate::tracer::Point;

/// What a record allows: the k-th time that a ref gets a value in a run, and what a record before it
/// has said.
pub(super) type Move = (&'static str, usize, &'static [&'static str]);

/// Records of a run, with the place from which on each may be acted upon.
struct Records<'a> {
    all: Vec<(usize, &'a str)>,
}

impl<'a> Records<'a> {
    /// Between the sync and the next call of the thread that has written nothing may begin: the lock of
    /// the journal is given back before.
    fn of(points: &'a [Point]) -> Self {
        let is_record = |point: &Point| point.call.ends_with(".ndjson") && !point.text.is_empty();
        let written = points.iter().enumerate().filter(|(_, point)| is_record(point));
        let all = written.map(|(place, point)| {
            let own = |later: &usize| {
                let later = &points[*later];
                (later.role.as_str(), later.thread) == (point.role.as_str(), point.thread)
            };
            // The next one is the sync, which is looked at elsewhere.
            let free = (place + 1..points.len()).filter(own).nth(1);
            (free.unwrap_or(points.len()), point.text.as_str())
        });
        Self { all: all.collect() }
    }

    /// Returns from which place on the first record that says all of this counts.
    fn says(&self, words: &[&str]) -> Option<usize> {
        let says = |text: &str| words.iter().all(|word| text.contains(word));
        self.all.iter().find(|(_, text)| says(text)).map(|(place, _)| *place)
    }

    /// Ids of the attempts that were added, with from where on that counts, and whether nothing is to
    /// be prepared for it.
    fn added(&self) -> BTreeMap<&'a str, (usize, bool)> {
        let mut added = BTreeMap::new();
        for (place, text) in &self.all {
            let ids = text.split(r#""kind":"attempt_added","id":""#).skip(1);
            for (id, rest) in ids.filter_map(|rest| rest.split_once('"')) {
                let phase = rest.split_once(r#""phase":""#).map(|(_, phase)| phase);
                let is_ready = phase.is_some_and(|phase| phase.starts_with("starting"));
                added.entry(id).or_insert((*place, is_ready));
            }
        }
        added
    }
}

/// Looks that nothing of an attempt is made before the attempt is on record, that its keeper is told to
/// run it when it is on record as prepared, and that its work is kept when its end is. Attempts of
/// earlier runs are not looked at. Returns how many calls are about one.
pub(super) fn come_first(points: &[Point]) -> Result<usize, String> {
    let records = Records::of(points);
    let mut count = 0;
    for (id, (from, is_ready)) in records.added() {
        let kind = |kind: &str| records.says(&[&format!(r#""kind":"{kind}","id":"{id}""#)]);
        let (prepared, exited) = (kind("attempt_prepared"), kind("attempt_exited"));
        let prepared = prepared.or(is_ready.then_some(from));
        for (place, point) in points.iter().enumerate() {
            let needed = match thing(point, id) {
                Some(Thing::Any) => Some(from),
                Some(Thing::Order) => prepared,
                Some(Thing::Kept) => exited,
                None => continue,
            };
            if needed.is_none_or(|needed| place < needed) {
                let (call, role) = (&point.call, &point.role);
                return Err(format!("`{call}` of {role} comes before the record of it is synced"));
            }
            count += 1;
        }
    }
    Ok(count)
}

/// Looks that refs are moved behind the records that say so.
pub(super) fn moves(points: &[Point], moves: &[Move]) -> Result<(), String> {
    let records = Records::of(points);
    for (name, number, words) in moves {
        let is_move =
            |point: &Point| point.call.starts_with("rename ") && point.call.ends_with(name);
        let moved = points.iter().enumerate().filter(|(_, point)| is_move(point)).nth(*number);
        let (place, _) = moved.ok_or(format!("`{name}` is not moved {} times", number + 1))?;
        if records.says(words).is_none_or(|from| place < from) {
            return Err(format!("`{name}` is moved before {words:?} is synced"));
        }
    }
    Ok(())
}

/// What of an attempt a call is about.
enum Thing {
    /// A file or folder of it.
    Any,
    /// The order to run it, or the record that it runs.
    Order,
    /// The ref of its work.
    Kept,
}

fn thing(point: &Point, id: &str) -> Option<Thing> {
    let has = |part: &str| {
        let end = point.call.split_once(part).map(|(_, rest)| rest);
        end.is_some_and(|rest| rest.is_empty() || rest.starts_with(['/', '.', ' ']))
    };
    let is_order = point.text.contains(r#""order":"run""#);
    if (is_order && point.text.contains(&format!(r#""attempt":"{id}""#)))
        || has(&format!("/attempts/{id}/started.json"))
    {
        return Some(Thing::Order);
    }
    if point.call.ends_with(&format!("refs/pipeline/salvage/{id}")) {
        return Some(Thing::Kept);
    }
    let is_any = has(&format!("/attempts/{id}")) || has(&format!("/logs/{id}"));
    is_any.then_some(Thing::Any)
}

/// Looks that a keeper leaves its records before it acts: that of the start before a program is
/// started, that of the end before the end is told. Returns how many ends it tells of. With windows it
/// also starts tmux, whenever it likes.
pub(super) fn of_keeper(points: &[&Point], has_windows: bool) -> Result<usize, String> {
    let (mut running, mut told) = (None, 0);
    let mut ended: Vec<&str> = Vec::new();
    for point in points {
        let (name, path) = point.call.split_once(' ').unwrap_or((&point.call, ""));
        let of = |file: &str| path.strip_suffix(file).and_then(|dir| dir.rsplit('/').next());
        if name == "rename"
            && let Some(id) = of("/started.json")
        {
            running = Some(id);
        }
        if name == "rename"
            && let Some(id) = of("/exit.json")
        {
            ended.push(id);
            running = None;
        }
        if name == "clone" && running.is_none() && !has_windows {
            return Err(format!("{}: a program is started before the record of it", point.role));
        }
        let names = |id: &&str| point.text.contains(&format!(r#""attempt":"{id}""#));
        if point.text.contains(r#""report":"started""#) && !running.iter().any(names) {
            return Err(format!("{}: a start is told before the record of it", point.role));
        }
        if point.text.contains(r#""report":"exited""#) {
            told += 1;
            if !ended.iter().any(names) {
                return Err(format!("{}: an end is told before the record of it", point.role));
            }
        }
    }
    Ok(told)
}
