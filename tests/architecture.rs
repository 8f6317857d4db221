//! What the sources of `node` can be asked. The arrows between crates are kept by cargo.

#![allow(clippy::unwrap_used, reason = "tests fail by panics")]

use std::{
    fs,
    path::{Path, PathBuf},
};

/// Every source file of the crate `node`, with its text less comments.
fn sources() -> Vec<(PathBuf, String)> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("crates/node/src");
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
    assert!(found.len() > 20, "the sources were not found");
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
fn the_swarm_task_knows_no_store() {
    let elsewhere = |path: &Path| path != Path::new("driver.rs") && path != Path::new("swarm.rs");
    assert_eq!(
        offenders(&["crate::store", "dhtstore_store", ".store", "records", "provided"], elsewhere),
        Vec::<String>::new()
    );
}
