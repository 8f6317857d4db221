//! The arrows and invariants of ARCHITECTURE.md that can be read off the sources.

#![allow(clippy::unwrap_used, reason = "tests fail by panics")]

use std::{
    fs,
    path::{Path, PathBuf},
};

/// Every source file below `src/`, with its text less comments.
fn sources() -> Vec<(PathBuf, String)> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut found = Vec::new();
    let mut todo = vec![root.clone()];
    while let Some(dir) = todo.pop() {
        for entry in fs::read_dir(dir).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                todo.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                let text = fs::read_to_string(&path).unwrap();
                let code: Vec<&str> = text.lines().map(|line| line.split("//").next().unwrap()).collect();
                found.push((path.strip_prefix(&root).unwrap().to_owned(), code.join("\n")));
            }
        }
    }
    assert!(found.len() > 50, "the sources were not found");
    found
}

/// Files, tests aside, that contain one of `words` though `allowed` does not hold for them.
fn offenders(words: &[&str], allowed: impl Fn(&Path) -> bool) -> Vec<String> {
    let mut found = Vec::new();
    for (path, code) in sources() {
        let is_test = path.components().any(|part| part.as_os_str().to_string_lossy().starts_with("tests"));
        // A module of tests stands at the end of its file.
        let code = code.split("#[cfg(test)]\nmod tests {").next().unwrap();
        if is_test || allowed(&path) {
            continue;
        }
        found.extend(
            words.iter().filter(|word| code.contains(**word)).map(|word| format!("{}: {word}", path.display())),
        );
    }
    found
}

#[test]
fn only_store_names_sled_and_bincode() {
    let allowed = |path: &Path| path.starts_with("store") || path == Path::new("store.rs");
    assert_eq!(offenders(&["sled::", "bincode::"], allowed), Vec::<String>::new());
}

#[test]
fn arrows_point_one_way() {
    for (room, not_known) in [
        ("store", &["crate::node", "crate::provide", "crate::control", "crate::cli", "crate::schedule"][..]),
        ("node", &["crate::provide", "crate::control", "crate::cli", "crate::schedule"]),
        ("provide", &["crate::control", "crate::cli", "crate::schedule"]),
        ("schedule", &["crate::control", "crate::cli"]),
        ("control", &["crate::cli"]),
    ] {
        let file = PathBuf::from(room).with_extension("rs");
        let elsewhere = |path: &Path| !path.starts_with(room) && path != file;
        assert_eq!(offenders(not_known, elsewhere), Vec::<String>::new(), "{room}");
    }
}

#[test]
fn the_swarm_task_knows_no_store() {
    let elsewhere = |path: &Path| path != Path::new("node/driver.rs") && path != Path::new("node/swarm.rs");
    assert_eq!(offenders(&["crate::store", ".store", "records", "provided"], elsewhere), Vec::<String>::new());
}
