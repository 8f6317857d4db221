//! Keeps docs/configuration.md equal to the program. The part below its introduction is made of three sources: the
//! comments of config/dhtstore.toml, the forms and bounds of [`KEYS`], and [`Config::defaults`].

use super::{
    Config, Mode, Profile,
    keys::{KEYS, Kind, kind, variable},
    text::{show_bytes, show_duration},
};
use std::fmt::Write;

const FILE: &str = include_str!("../../config/dhtstore.toml");
const PAGE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/docs/configuration.md");
/// The last line of the introduction, which is written by hand.
const MARK: &str = "<!-- Below this line a test writes: WRITE_DOCS=1 cargo test --lib configuration_page -->\n";

/// `WRITE_DOCS=1 cargo test --lib configuration_page` writes the page.
#[test]
fn configuration_page_says_what_the_program_does() {
    let page = std::fs::read_to_string(PAGE).unwrap();
    let (introduction, _) = page.split_once(MARK).expect("the introduction ends with the mark");
    let expected = format!("{introduction}{MARK}{}", reference());
    if std::env::var_os("WRITE_DOCS").is_some() {
        std::fs::write(PAGE, &expected).unwrap();
    }
    let page = std::fs::read_to_string(PAGE).unwrap();
    assert!(
        page == expected,
        "docs/configuration.md is out of date; run WRITE_DOCS=1 cargo test --lib \
        configuration_page"
    );
}

#[test]
fn choices_are_the_words_of_their_types() {
    let words = |key| match kind(key) {
        Some(Kind::Choice(words)) => words.iter().map(|word| toml::Value::from(*word)),
        other => panic!("{key}: {other:?}"),
    };
    let profiles: Vec<Profile> = words("profile").map(|word| word.try_into().unwrap()).collect();
    assert_eq!(profiles, Profile::ALL);
    let modes: Vec<Mode> = words("mode").map(|word| word.try_into().unwrap()).collect();
    assert_eq!(modes, [Mode::Auto, Mode::Server, Mode::Client]);
}

/// Returns the page without its introduction: a heading for each section and each setting, in the order of the file.
fn reference() -> String {
    let defaults = Profile::ALL.map(|profile| toml::Table::try_from(Config::defaults(profile)).unwrap());
    let mut page = String::from("\n## Settings outside of sections\n");
    let (mut section, mut comment, mut seen) = (String::new(), Vec::new(), Vec::new());
    for line in FILE.lines() {
        if let Some(text) = line.strip_prefix("# ") {
            comment.push(text);
        } else if let Some(name) = line.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')) {
            section = format!("{name}.");
            write!(page, "\n## `[{name}]`\n{}", paragraphs(&comment)).unwrap();
            comment.clear();
        } else if let Some((name, _)) = line.strip_prefix('#').and_then(|rest| rest.split_once(" = ")) {
            let key = format!("{section}{name}");
            assert!(!comment.is_empty() || name == "cron", "{key} has no comment in config/dhtstore.toml");
            write!(page, "\n### `{key}`\n\n{}{}", facts(&key, &defaults), paragraphs(&comment)).unwrap();
            comment.clear();
            seen.push(key);
        } else {
            // The comment above belongs to no setting.
            comment.clear();
        }
    }
    assert!(seen.iter().eq(KEYS.iter().map(|(key, _)| key)), "config/dhtstore.toml and KEYS differ: {seen:?}");
    page
}

/// Returns the environment variable, type, bounds and default of a setting.
fn facts(key: &str, defaults: &[toml::Table; 2]) -> String {
    let form = match kind(key).unwrap() {
        Kind::Choice(words) => format!("one of `\"{}\"`", words.join("\"`, `\"")),
        Kind::Number(bounds) => format!("number, {} to {}", grouped(*bounds.start()), grouped(*bounds.end())),
        Kind::Size(bounds) => {
            format!("size, `\"{}\"` to `\"{}\"`", show_bytes(*bounds.start()), show_bytes(*bounds.end()))
        }
        Kind::Duration(bounds) => {
            format!("duration, `\"{}\"` to `\"{}\"`", show_duration(*bounds.start()), show_duration(*bounds.end()))
        }
        Kind::Switch => "`true` or `false`".into(),
        Kind::Cron => "cron expression of six fields".into(),
        Kind::Addresses => "list of multiaddrs".into(),
        Kind::Path => "path".into(),
    };
    let [private, amino] = defaults.each_ref().map(|table| default(key, table));
    let default = match private == amino {
        true => format!("- Default:{private}\n"),
        false => format!("- Default with `private`:{private}\n- Default with `amino`:{amino}\n"),
    };
    format!("- Environment variable: `{}`\n- Type: {form}\n{default}", variable(key))
}

/// Returns the default of a setting as the file writes it, with a space in front. Several addresses become a Markdown
/// list.
fn default(key: &str, defaults: &toml::Table) -> String {
    let mut parts = key.split('.');
    let first = parts.next().and_then(|part| defaults.get(part));
    match parts.fold(first, |value, part| value?.get(part)) {
        _ if key == "profile" => format!(" `\"{}\"`", Profile::default().name()),
        // The default depends on the user.
        _ if key == "data_dir" => " unset".into(),
        None => " unset".into(),
        Some(toml::Value::Array(items)) if items.len() > 1 => {
            items.iter().map(|item| format!("\n  - `{item}`")).collect()
        }
        Some(toml::Value::Integer(number)) => format!(" `{}`", grouped(u64::try_from(*number).unwrap())),
        Some(value) => format!(" `{value}`"),
    }
}

/// Writes a number as the file does: `20_000_000`.
fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let groups: Vec<&str> = digits.as_bytes().rchunks(3).rev().map(|group| str::from_utf8(group).unwrap()).collect();
    groups.join("_")
}

/// Returns a comment as Markdown. Quoted values become code. The reason, and the meaning of an unset or empty value,
/// each begin a paragraph.
fn paragraphs(comment: &[&str]) -> String {
    let mut text = String::new();
    for (index, line) in comment.iter().enumerate() {
        let begins = index == 0 || ["Why: ", "Unset: ", "Empty: "].iter().any(|word| line.starts_with(word));
        let line: Vec<String> = line.split('"').enumerate().map(|(n, part)| quoted(n, part)).collect();
        let _ = writeln!(text, "{}{}", if begins { "\n" } else { "" }, line.concat());
    }
    text
}

fn quoted(index: usize, part: &str) -> String {
    if index.is_multiple_of(2) { part.to_owned() } else { format!("`\"{part}\"`") }
}
