//! forks/README.md names every fork, and every fork is in use.

use super::root;
use std::fs;

/// A fork whose version libp2p no longer asks for would stay in the tree unused: cargo then takes the published crate.
#[test]
fn each_fork_is_named_with_its_issue_and_is_the_only_version_in_use() {
    let readme = fs::read_to_string(root().join("forks/README.md")).unwrap();
    let lock = fs::read_to_string(root().join("Cargo.lock")).unwrap();
    let mut forks = 0;
    for entry in fs::read_dir(root().join("forks")).unwrap().map(Result::unwrap) {
        if !entry.path().is_dir() {
            continue;
        }
        forks += 1;
        let name = entry.file_name().into_string().unwrap();
        let row = readme.lines().find(|line| line.starts_with(&format!("| `{name}` "))).unwrap();
        assert!(row.contains("/issues/"), "{name}: the table must name the upstream issue");
        let locked: Vec<&str> =
            lock.split("[[package]]").filter(|package| package.contains(&format!("\nname = \"{name}\"\n"))).collect();
        assert_eq!(locked.len(), 1, "{name}: one version");
        assert!(!locked[0].contains("source = "), "{name}: cargo takes the published crate; see forks/README.md");
        let version = locked[0].lines().find_map(|line| line.strip_prefix("version = ")).unwrap().trim_matches('"');
        assert!(row.contains(version), "{name}: the table must name version {version}");
    }
    assert!(forks > 0);
}
