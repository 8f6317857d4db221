//! The table of warnings in `docs/operating.md` has every text that the program logs as a warning or an error, and no
//! other.
//!
//! The table writes `…` for what the program fills in.

use crate::{conformance::files, root};
use std::{collections::BTreeSet, fs};

/// What comes before the brackets around a text that is logged, or noted for the log and `stat`.
const SAYS: [&str; 8] = [
    "warn!",
    "error!",
    ".note(format!",
    ".damaged(format!",
    "notes.push(format!",
    "findings.warn",
    "let note =",
    "self.reopen(format!",
];

/// Files whose notes are not logged: they go to the terminal of the command that makes them.
const OF_COMMANDS: [&str; 4] =
    ["src/backup/reader.rs", "src/cli/init.rs", "src/cli/init/kubo.rs", "crates/store/src/migration.rs"];

/// Texts that are built apart from the macro that logs them: all strings in the braces that open after these words.
const APART: [(&str, &str); 12] = [
    ("crates/node/src/renewal.rs", "let complaint = match"),
    ("crates/node/src/renewal.rs", "fn uncovered("),
    ("crates/store/src/disk.rs", "fn short_note("),
    ("crates/store/src/disk.rs", "fn low_note("),
    ("crates/store/src/disk.rs", "fn near_note("),
    ("crates/store/src/disk.rs", "fn full_note("),
    ("crates/store/src/health.rs", "pub fn note("),
    ("crates/store/src/provided.rs", "fn read_rows("),
    ("crates/store/src/provided.rs", "fn load_routing("),
    ("crates/store/src/provided/exports.rs", "let (found, unread)"),
    ("crates/transport/src/certificate.rs", "pub fn complaint("),
    ("crates/transport/src/listen.rs", "let why = match"),
];

/// Single texts that are built apart: the first string from these words on.
const SINGLE: [(&str, &str); 2] =
    [("src/config/validate.rs", "\"{shown} is short for"), ("src/config/keys.rs", "const EXPORTS_RETIRED")];

/// A text with fewer letters says nothing by itself: it stands for one that is built elsewhere.
const MIN_LETTERS: usize = 4;

/// A text that the program logs, and where.
struct Said {
    place: String,
    text: String,
}

/// The string that begins at the first quotation mark, with `…` in place of what is filled in; and the source after it.
fn string(source: &str) -> Option<(String, &str)> {
    let start = source.find('"')? + 1;
    let (mut text, mut escaped, mut skipping, mut depth) = (String::new(), false, false, 0);
    for (at, c) in source[start..].char_indices() {
        match c {
            _ if skipping && c.is_whitespace() => {}
            '\n' if escaped => (escaped, skipping) = (false, true),
            _ if escaped => {
                (escaped, skipping) = (false, false);
                text.push(c);
            }
            '\\' => (escaped, skipping) = (true, false),
            '"' => return Some((text, &source[start + at + 1..])),
            '{' => depth += 1,
            '}' => {
                depth -= 1;
                text.push('…');
            }
            _ if depth > 0 => {}
            _ => {
                skipping = false;
                text.push(c);
            }
        }
    }
    None
}

/// All strings in the brackets that were opened just before `source` begins. Names and values of fields are not texts.
fn strings(mut source: &str, open: char, close: char) -> Vec<String> {
    let (mut found, mut depth) = (Vec::new(), 1);
    loop {
        let Some(at) = source.find([open, close, '"']) else { return found };
        match &source[at..=at] {
            "\"" => {
                let Some((text, rest)) = string(&source[at..]) else { return found };
                found.push(text);
                source = rest;
                continue;
            }
            bracket if bracket.starts_with(open) => depth += 1,
            _ => depth -= 1,
        }
        source = &source[at + 1..];
        if depth == 0 {
            return found;
        }
    }
}

fn says_something(text: &str) -> bool {
    text.chars().filter(char::is_ascii_alphabetic).count() >= MIN_LETTERS && text.contains(' ') || text == "panicked"
}

/// Every source of the program without its unit tests, by its path in the repository.
fn sources() -> Vec<(String, String)> {
    let all = ["src", "crates"].iter().flat_map(|dir| files(&root().join(dir), "rs"));
    let own = all.filter_map(|path| {
        let name = path.strip_prefix(root()).unwrap().to_string_lossy().into_owned();
        let is_test = ["testkit", "/tests", "/benches", "/examples", "fuzzing"].iter().any(|part| name.contains(part));
        let text = fs::read_to_string(&path).unwrap();
        (!is_test).then(|| (name, text.split("#[cfg(test)]\nmod tests {").next().unwrap().to_owned()))
    });
    own.collect()
}

/// The position after the opening bracket that follows each occurrence of `words`.
fn opened<'s>(source: &'s str, words: &'s str, bracket: char) -> impl Iterator<Item = usize> + 's {
    let behind = move |at: usize| source[at..].find(bracket).map(|open| at + open + 1);
    source
        .match_indices(words)
        .filter_map(move |(at, _)| behind(at + words.len() - usize::from(words.ends_with(bracket))))
}

fn logged() -> Vec<Said> {
    let mut said = Vec::new();
    for (name, source) in sources() {
        let mut add = |at: usize, texts: Vec<String>| {
            let place = format!("{name}:{}", source[..at].lines().count());
            let texts = texts.into_iter().filter(|text| says_something(text));
            said.extend(texts.map(|text| Said { place: place.clone(), text }));
        };
        for words in SAYS.iter().filter(|_| !OF_COMMANDS.contains(&name.as_str())) {
            opened(&source, words, '(').for_each(|at| add(at, strings(&source[at..], '(', ')')));
        }
        for (_, words) in APART.iter().filter(|(file, _)| *file == name) {
            let mut places = opened(&source, words, '{').peekable();
            assert!(places.peek().is_some(), "{name} has no {words:?} any more: correct APART");
            places.for_each(|at| add(at, strings(&source[at..], '{', '}')));
        }
        for (_, words) in SINGLE.iter().filter(|(file, _)| *file == name) {
            let at = source.find(words).unwrap_or_else(|| panic!("{name} has no {words:?} any more: correct SINGLE"));
            add(at, string(&source[at..]).map(|(text, _)| text).into_iter().collect());
        }
    }
    said
}

/// The first cells of the table below `## Warnings and errors in the log`, without their backticks.
fn table() -> BTreeSet<String> {
    let page = fs::read_to_string(root().join("docs/operating.md")).unwrap();
    let (_, section) = page.split_once("\n## Warnings and errors in the log\n").unwrap();
    let section = section.split("\n## ").next().unwrap();
    let rows = section.lines().filter(|line| line.starts_with("| `"));
    rows.map(|row| row.trim_start_matches("| ").split(" | ").next().unwrap().trim_matches('`').trim().to_owned())
        .collect()
}

#[test]
fn the_table_of_warnings_has_every_text_that_is_logged_and_no_other() {
    let (table, logged) = (table(), logged());
    assert!(logged.len() > 60, "{}", logged.len());
    let missing: Vec<String> = logged
        .iter()
        .filter(|said| !table.contains(&said.text))
        .map(|said| format!("{}: {}", said.place, said.text))
        .collect();
    let texts: BTreeSet<&str> = logged.iter().map(|said| said.text.as_str()).collect();
    let gone: Vec<&String> = table.iter().filter(|text| !texts.contains(text.as_str())).collect();
    assert!(
        missing.is_empty() && gone.is_empty(),
        "logged, but not in the table of docs/operating.md:\n{}\n\nin that table, but logged nowhere:\n{gone:#?}",
        missing.join("\n")
    );
}

#[test]
fn a_macro_without_a_text_of_its_own_logs_one_that_is_built_in_a_known_place() {
    // `warn!("{note}")` and the like. A new one needs an entry in SAYS or APART, and its number here.
    let known = [
        ("crates/node/src/renewal.rs", 2),
        ("crates/store/src/disk.rs", 4),
        ("crates/store/src/lib.rs", 1),
        ("crates/store/src/records/state.rs", 1),
        ("crates/store/src/recovery.rs", 1),
        ("src/cli/run.rs", 1),
        ("src/daemon.rs", 1),
    ];
    for (name, source) in sources() {
        let macros = opened(&source, "warn!", '(').chain(opened(&source, "error!", '('));
        let silent =
            macros.filter(|at| !strings(&source[*at..], '(', ')').iter().any(|text| says_something(text))).count();
        let expected = known.iter().find(|(file, _)| *file == name).map_or(0, |(_, count)| *count);
        assert_eq!(silent, expected, "{name}");
    }
}
