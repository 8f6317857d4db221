//! `docs/conformance.md` says of every clause how it is met and which test proves it. These tests check that it does.

use crate::root;
use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
};

/// Every clause, in the order of the table.
const CLAUSES: [&str; 44] = [
    "MODE-1", "MODE-2", "LAN-1", "CLI-1", "NET-1", "NET-2", "NET-3", "NET-4", "NET-5", "KEY-1", "RT-1", "RT-2", "RT-3",
    "RT-4", "RT-5", "RT-6", "RT-7", "RT-8", "SRV-1", "SRV-2", "SRV-3", "SRV-4", "SRV-5", "LKP-1", "LKP-2", "PRV-1",
    "PRV-2", "PRV-3", "PRV-4", "PRV-5", "PRV-6", "PRV-7", "PRV-8", "PRV-9", "PRV-10", "VAL-1", "VAL-2", "VAL-3",
    "VAL-4", "VAL-5", "VAL-6", "MSG-1", "MSG-2", "MSG-3",
];

/// What a row without a test must contain.
const UNMET: [&str; 2] = ["not yet", "not met"];

/// A row: clause id, all cells, and the names in backticks in the last cell.
struct Row {
    id: String,
    cells: Vec<String>,
    tests: Vec<String>,
}

/// The rows whose first cell is a clause id, like `RT-5`.
fn rows() -> Vec<Row> {
    let text = fs::read_to_string(root().join("docs/conformance.md")).unwrap();
    let cells = |line: &str| line.trim().trim_matches('|').split('|').map(|cell| cell.trim().to_owned()).collect();
    let of_line = |line: &str| {
        let cells: Vec<String> = cells(line);
        let (letters, digits) = cells[0].split_once('-')?;
        let is_id = letters.chars().all(|c| c.is_ascii_uppercase()) && digits.chars().all(|c| c.is_ascii_digit());
        let tests = cells.last()?.split('`').skip(1).step_by(2).map(str::to_owned).collect();
        (is_id && !letters.is_empty() && !digits.is_empty()).then(|| Row { id: cells[0].clone(), cells, tests })
    };
    text.lines().filter(|line| line.starts_with('|')).filter_map(of_line).collect()
}

/// Files below `dir` with this extension; none if there is no such directory.
pub fn files(dir: &Path, extension: &str) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(dir).into_iter().flatten() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            found.extend(files(&path, extension));
        } else if path.extension().is_some_and(|e| e == extension) {
            found.push(path);
        }
    }
    found
}

/// A source file as the table names it: below the name of a crate, or in `src/`. `kad.rs` is the root of the crate
/// `kad`.
fn source(name: &str) -> PathBuf {
    let (room, rest) = name.split_once('/').unwrap_or((name.trim_end_matches(".rs"), "lib.rs"));
    let of_crate = root().join("crates").join(room).join("src");
    if of_crate.is_dir() { of_crate.join(rest) } else { root().join("src").join(name) }
}

/// The name after `keyword`, if the line declares a function.
fn declared<'l>(line: &'l str, keyword: &str) -> Option<&'l str> {
    let behind = line.trim_start().trim_start_matches("async ").strip_prefix(keyword)?;
    behind.split(|c: char| !c.is_alphanumeric() && c != '_').next().filter(|name| !name.is_empty())
}

/// Every function that the test runner runs. In Rust an attribute above it marks it, in Go its name.
fn all_tests() -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    for path in ["src", "crates", "tests"].iter().flat_map(|dir| files(&root().join(dir), "rs")) {
        let text = fs::read_to_string(path).unwrap();
        let mut is_test = false;
        for line in text.lines().map(str::trim) {
            if line.starts_with("#[test]") || line.starts_with("#[tokio::test") {
                is_test = true;
            } else if let Some(name) = declared(line, "fn ") {
                if std::mem::take(&mut is_test) {
                    found.insert(name.to_owned());
                }
            } else if !line.starts_with("#[") && !line.starts_with("//") {
                is_test = false;
            }
        }
    }
    for path in files(&root().join("tests/interop"), "go") {
        let text = fs::read_to_string(path).unwrap();
        let names = text.lines().filter_map(|line| declared(line, "func "));
        found.extend(names.filter(|name| name.starts_with("Test")).map(str::to_owned));
    }
    assert!(found.len() > 200, "the tests were not found");
    found
}

#[test]
fn every_clause_has_one_row_in_order() {
    let ids: Vec<String> = rows().into_iter().map(|row| row.id).collect();
    assert_eq!(ids, CLAUSES);
}

#[test]
fn every_row_says_how_binding_it_is_what_it_asks_and_how_it_is_met() {
    for row in rows() {
        assert_eq!(row.cells.len(), 5, "{}: id, weight, clause, how, tests", row.id);
        assert!(row.cells[1].split('/').all(|weight| ["M", "S", "P"].contains(&weight)), "{}", row.id);
        assert!(row.cells.iter().all(|cell| !cell.is_empty()), "{} has an empty cell", row.id);
    }
}

#[test]
fn every_test_that_a_row_names_exists() {
    let tests = all_tests();
    let missing: Vec<String> = rows()
        .into_iter()
        .flat_map(|row| row.tests.into_iter().map(move |test| (row.id.clone(), test)))
        .filter(|(_, test)| !tests.contains(test))
        .map(|(id, test)| format!("{id}: {test}"))
        .collect();
    assert_eq!(missing, Vec::<String>::new());
}

#[test]
fn a_row_without_a_test_says_that_it_is_not_met() {
    for row in rows() {
        let says_so = UNMET.iter().any(|words| row.cells[3..].iter().any(|cell| cell.contains(words)));
        assert!(says_so || !row.tests.is_empty(), "{} names no test and does not say why", row.id);
    }
}

#[test]
fn every_source_file_that_a_row_names_exists() {
    for row in rows() {
        for name in row.cells[3].split('`').skip(1).step_by(2).filter(|name| name.ends_with(".rs")) {
            assert!(source(name).is_file(), "{}: {name}", row.id);
        }
    }
}
