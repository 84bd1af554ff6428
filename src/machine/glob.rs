//! A path glob as an automaton over the characters of a path, for [`overlap`](super::overlap).
//!
//! * `*` and `?` stand for characters of one path segment, never for `/`; `[ab]`, `[a-z]`, `[!a]` and
//!   `[^a]` for one character; `{a,b}` for one of the alternatives, which may be empty, hold `/` and be
//!   nested; `\` takes the next character as it is. Letter case counts, a leading dot does not.
//! * `**` as a whole segment stands for any number of segments, none included, but at the end for at
//!   least one: `src/**` is all below `src`. Elsewhere it is `*`, as are three stars and more.
//! * As a path for git, a glob without a wildcard names a file or a folder with all below it: `src`
//!   covers `src` and `src/a/b`. With one it names files: `src/*` is what is in `src` itself. One that
//!   ends with `/` names all below: `src/`, `src/*/gen/`. `.` is the whole project.
//! * Empty segments and `.` count for nothing: `./src//a` is `src/a`.
//!
//! A state is a place in the glob and a [`Mode`]: what was read of the segment there. There are at
//! most eight for each character of the glob, and each has at most one step by `/` and one by other
//! characters, so that two globs are held against each other in the product of their lengths.

/// Longest glob, in bytes. Linux takes no longer path (PATH_MAX).
pub const GLOB_BYTES_MAX: usize = 4096;

/// Ranges of characters, first and last, in order; without `/` and NUL.
type Set = Vec<(char, char)>;

#[derive(Debug, Clone, PartialEq)]
enum Token {
    /// One character.
    Letter(Set),
    /// One character out of several: `?`, `[…]`.
    Wild(Set),
    Slash,
    Star,
    DoubleStar,
    /// Goes on at one of these places.
    Fork(Vec<usize>),
    /// Goes on at this place.
    Jump(usize),
}

/// What was read of the segment at a place of the glob.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// Nothing: the segment begins here; no wildcard stands before it.
    Fresh,
    /// Nothing, but some segment before it has a wildcard.
    Afresh,
    /// Letters, and no wildcard in the whole glob so far.
    Plain,
    /// A wildcard, here or in a segment before.
    Wild,
    /// Inside the segments of a `**`.
    Deep,
    /// A `**` that stood for no segment, or for some with the `/` behind: the next `/` is read.
    Skip,
    /// A `**` that stood for whole segments: a `/` or the end must follow.
    Bound,
    /// Below what the glob names.
    Below,
}

/// How many modes there are.
const MODES: usize = 8;

/// A place in the glob, and what was read of its segment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct At {
    place: usize,
    mode: Mode,
}

/// Where it goes from a state.
#[derive(Debug)]
pub struct Moves<'a> {
    /// By reading nothing.
    pub free: Vec<At>,
    /// By reading a `/`.
    pub slash: Option<At>,
    /// By reading one of these characters.
    pub letter: Option<(&'a [(char, char)], At)>,
    /// Whether the path may end here.
    pub is_end: bool,
}

/// A glob, read.
#[derive(Debug, Clone, PartialEq)]
pub struct Pattern {
    tokens: Vec<Token>,
    any: Set,
}

impl Pattern {
    /// Reads a glob.
    ///
    /// # Errors
    /// What is wrong with it, to be said after the glob.
    pub fn read(glob: &str) -> Result<Self, String> {
        if glob.len() > GLOB_BYTES_MAX {
            return Err(format!("is longer than {GLOB_BYTES_MAX} bytes"));
        }
        let tokens = tokens(&undotted(glob))?;
        Ok(Self { tokens, any: complement(&[]) })
    }

    /// Returns the pattern of one path, in which nothing is a wildcard.
    #[must_use]
    pub fn of_path(path: &str) -> Self {
        let token = |c| if c == '/' { Token::Slash } else { Token::Letter(vec![(c, c)]) };
        Self { tokens: undotted(path).chars().map(token).collect(), any: complement(&[]) }
    }

    /// Returns the state before anything is read.
    #[must_use]
    pub const fn start(&self) -> At {
        At { place: 0, mode: Mode::Fresh }
    }

    /// Returns how many states there are.
    #[must_use]
    pub const fn state_count(&self) -> usize {
        (self.tokens.len() + 1) * MODES
    }

    /// Returns the number of a state, below [`state_count`](Self::state_count).
    #[must_use]
    pub const fn number(&self, at: At) -> usize {
        at.place * MODES + at.mode as usize
    }

    /// Returns where it goes from `at`, where a segment begins or not.
    #[must_use]
    pub fn moves(&self, at: At, is_segment_start: bool) -> Moves<'_> {
        let At { place, mode } = at;
        let any = self.any.as_slice();
        let mut moves = Moves { free: Vec::new(), slash: None, letter: None, is_end: false };
        let is_reading = matches!(mode, Mode::Fresh | Mode::Afresh | Mode::Plain | Mode::Wild);
        let next = |mode| At { place: place + 1, mode };
        match self.tokens.get(place) {
            Some(Token::Fork(places)) => {
                moves.free.extend(places.iter().map(|place| At { place: *place, mode }));
            }
            Some(Token::Jump(place)) => moves.free.push(At { place: *place, mode }),
            Some(Token::Letter(set)) if is_reading => {
                let is_plain = matches!(mode, Mode::Fresh | Mode::Plain);
                moves.letter = Some((set, next(if is_plain { Mode::Plain } else { Mode::Wild })));
            }
            Some(Token::Wild(set)) if is_reading => moves.letter = Some((set, next(Mode::Wild))),
            Some(Token::Slash) => match mode {
                Mode::Fresh => moves.free.push(next(Mode::Fresh)),
                Mode::Afresh | Mode::Skip => moves.free.push(next(Mode::Afresh)),
                Mode::Plain => moves.slash = Some(next(Mode::Fresh)),
                Mode::Wild | Mode::Bound => moves.slash = Some(next(Mode::Afresh)),
                Mode::Deep | Mode::Below => {}
            },
            Some(Token::DoubleStar) if mode == Mode::Deep => {
                moves.slash = Some(at);
                moves.letter = Some((any, at));
                let then = if is_segment_start { Mode::Skip } else { Mode::Bound };
                moves.free.push(next(then));
            }
            Some(Token::Star | Token::DoubleStar) if is_reading => {
                moves.letter = Some((any, At { place, mode: Mode::Wild }));
                moves.free.push(next(Mode::Wild));
                if matches!(mode, Mode::Fresh | Mode::Afresh)
                    && self.tokens[place] == Token::DoubleStar
                {
                    moves.free.push(At { place, mode: Mode::Deep });
                }
            }
            Some(Token::Letter(_) | Token::Wild(_) | Token::Star | Token::DoubleStar) => {}
            None => self.end(at, &mut moves),
        }
        moves
    }

    /// Fills in where it goes when all of the glob is read.
    fn end<'a>(&'a self, at: At, moves: &mut Moves<'a>) {
        let below = At { place: at.place, mode: Mode::Below };
        match at.mode {
            Mode::Fresh | Mode::Afresh => moves.free.push(below),
            Mode::Plain => {
                moves.is_end = true;
                moves.slash = Some(below);
            }
            Mode::Wild | Mode::Bound => moves.is_end = true,
            Mode::Below => {
                moves.is_end = true;
                moves.slash = Some(below);
                moves.letter = Some((&self.any, below));
            }
            Mode::Deep | Mode::Skip => {}
        }
    }
}

/// Returns the glob of one path, in which nothing is a wildcard.
#[must_use]
pub fn literal(path: &str) -> String {
    let mut glob = String::with_capacity(path.len());
    for c in path.chars() {
        if matches!(c, '*' | '?' | '[' | ']' | '{' | '}' | '\\') {
            glob.push('\\');
        }
        glob.push(c);
    }
    glob
}

/// Leaves out segments that are `.`; empty ones are passed over by [`Pattern::moves`].
fn undotted(glob: &str) -> String {
    let ends_with_dot = glob == "." || glob.ends_with("/.");
    let mut kept: Vec<&str> = glob.split('/').filter(|segment| *segment != ".").collect();
    if ends_with_dot {
        kept.push("");
    }
    kept.join("/")
}

/// An alternation that is not closed yet.
struct Open {
    /// Where its [`Token::Fork`] stands.
    fork: usize,
    /// Where its alternatives begin.
    starts: Vec<usize>,
    /// The [`Token::Jump`]s at the ends of its alternatives.
    jumps: Vec<usize>,
}

fn tokens(glob: &str) -> Result<Vec<Token>, String> {
    let mut tokens = Vec::with_capacity(glob.len());
    let mut open: Vec<Open> = Vec::new();
    let mut rest = glob.chars().peekable();
    while let Some(c) = rest.next() {
        match (c, open.last_mut()) {
            ('/', _) => tokens.push(Token::Slash),
            ('?', _) => tokens.push(Token::Wild(complement(&[]))),
            ('[', _) => tokens.push(Token::Wild(class(&mut rest)?)),
            ('*', _) => {
                let mut stars = 1;
                while rest.next_if_eq(&'*').is_some() {
                    stars += 1;
                }
                tokens.push(if stars == 2 { Token::DoubleStar } else { Token::Star });
            }
            ('\\', _) => match rest.next() {
                Some('/') => tokens.push(Token::Slash),
                Some(c) => tokens.push(Token::Letter(vec![(c, c)])),
                None => return Err("ends with a `\\` that takes nothing".to_owned()),
            },
            ('{', _) => {
                let fork = tokens.len();
                open.push(Open { fork, starts: vec![fork + 1], jumps: Vec::new() });
                tokens.push(Token::Fork(Vec::new()));
            }
            (',', Some(alternation)) => {
                alternation.jumps.push(tokens.len());
                alternation.starts.push(tokens.len() + 1);
                tokens.push(Token::Jump(0));
            }
            ('}', None) => return Err("closes a `{` that is not there".to_owned()),
            ('}', Some(_)) => close(&mut tokens, open.pop()),
            (c, _) => tokens.push(Token::Letter(vec![(c, c)])),
        }
    }
    if open.is_empty() { Ok(tokens) } else { Err("does not close its `{`".to_owned()) }
}

/// Leads all alternatives on to what comes next.
fn close(tokens: &mut [Token], closed: Option<Open>) {
    let end = tokens.len();
    if let Some(Open { fork, starts, jumps }) = closed {
        tokens[fork] = Token::Fork(starts);
        for jump in jumps {
            tokens[jump] = Token::Jump(end);
        }
    }
}

/// Reads a class behind its `[`. A `]` that comes first is a member.
fn class(rest: &mut std::iter::Peekable<std::str::Chars<'_>>) -> Result<Set, String> {
    let is_negated = rest.next_if(|c| matches!(c, '!' | '^')).is_some();
    let mut ranges: Set = Vec::new();
    let mut members = Vec::new();
    loop {
        match rest.next() {
            None => return Err("does not close its `[`".to_owned()),
            Some('/') => return Err("holds a `/` inside `[…]`".to_owned()),
            Some(']') if !members.is_empty() => break,
            Some(c) => members.push(c),
        }
    }
    let mut left = members.as_slice();
    while let [first, more @ ..] = left {
        let (last, more) = match more {
            ['-', last, more @ ..] => (last, more),
            more => (first, more),
        };
        if first > last {
            return Err(format!("holds the range `{first}-{last}`, which is empty"));
        }
        ranges.push((*first, *last));
        left = more;
    }
    let outside = complement(&ranges);
    Ok(if is_negated { outside } else { complement(&outside) })
}

/// Returns all characters of a path's segment that lie in none of the ranges.
fn complement(ranges: &[(char, char)]) -> Set {
    let mut taken = ranges.to_vec();
    taken.extend([('\0', '\0'), ('/', '/')]);
    taken.sort_unstable();
    let mut set = Set::new();
    let mut from = Some('\0');
    for (first, last) in taken {
        let Some(next) = from else { break };
        if let Some(before) = before(first).filter(|before| *before >= next) {
            set.push((next, before));
        }
        from = if last >= next { after(last) } else { from };
    }
    set.extend(from.map(|next| (next, char::MAX)));
    set
}

/// Returns the character before; surrogates are none.
fn before(c: char) -> Option<char> {
    ('\0'..c).next_back()
}

/// Returns the character after; surrogates are none.
fn after(c: char) -> Option<char> {
    (c..=char::MAX).nth(1)
}

/// Says whether two sets share a character.
#[must_use]
pub fn intersect(left: &[(char, char)], right: &[(char, char)]) -> bool {
    let (mut l, mut r) = (left.iter().peekable(), right.iter().peekable());
    while let (Some(a), Some(b)) = (l.peek(), r.peek()) {
        if a.1 < b.0 {
            l.next();
        } else if b.1 < a.0 {
            r.next();
        } else {
            return true;
        }
    }
    false
}
