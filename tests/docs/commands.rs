//! Every command that README and the pages of `docs/` show is run here, or listed here with the reason why not.

use crate::{
    pages::{Step, all, sections},
    root,
    sandbox::Sandbox,
};
use std::{collections::BTreeSet, fs, thread};

/// Programs that the sandbox runs: the binary under test, stubs, and tools of every Linux system.
const RUN_HERE: [&str; 16] = [
    "dhtstore",
    "ssh",
    "systemctl",
    "journalctl",
    "pkill",
    "chown",
    "jq",
    "cat",
    "sed",
    "head",
    "grep",
    "mkdir",
    "mv",
    "echo",
    "wc",
    "sort",
];

/// Commands that do not run here: how they begin, and the file that runs them, or why nothing does.
const ELSEWHERE: [(&str, Covered); 15] = [
    ("cargo", Covered::By(".ci/run")),
    ("DISK_TESTS=require cargo", Covered::By(".ci/run")),
    ("DHTSTORE_KILLS=1000 cargo", Covered::By(".ci/run")),
    ("DAMAGE_CASES=2000 cargo", Covered::Because("a longer run of a test that `cargo test` runs")),
    ("DHTSTORE_MIXED_MINUTES=10 tests/interop/run.sh", Covered::By(".ci/run")),
    ("tests/interop/run.sh", Covered::By(".ci/run")),
    ("fuzz/run.sh", Covered::By(".ci/run")),
    (".ci/run", Covered::Because("it is what runs everything else")),
    ("ops/demo.sh", Covered::By(".ci/run")),
    ("apt-get install", Covered::By(".ci/run")),
    ("certbot", Covered::Because("needs a certificate authority; tests/node/websockets.rs renews a certificate")),
    ("install -", Covered::Because("writes to /usr; ops/systemd/verify.sh checks the files that it installs")),
    ("systemd-sysusers", Covered::By("ops/systemd/verify.sh")),
    ("sh join.sh", Covered::By("tests/interop/repository_test.go")),
    ("dhtstore init --from-kubo", Covered::By("tests/interop/repository_test.go")),
];

/// What covers a command that does not run here.
enum Covered {
    /// This file, which must contain the last word of the entry.
    By(&'static str),
    Because(&'static str),
}

/// The commands of a command line, without `sudo`.
fn parts(command: &str) -> Vec<&str> {
    let parts = command.split("&&").flat_map(|part| part.split(" | ")).map(str::trim);
    parts.map(|part| part.strip_prefix("sudo ").unwrap_or(part)).collect()
}

/// The entry of [`ELSEWHERE`] for a command line.
fn elsewhere(command: &str) -> Option<usize> {
    let parts = parts(command);
    ELSEWHERE.iter().position(|(beginning, _)| parts.iter().any(|part| part.starts_with(beginning)))
}

fn is_run_here(step: &Step) -> bool {
    parts(&step.command).iter().all(|part| RUN_HERE.contains(&part.split(' ').next().unwrap()))
}

#[test]
fn every_command_of_a_document_runs_here_or_is_listed() {
    let pages = all();
    assert!(pages.len() > 5, "{pages:?}");
    let mut used = BTreeSet::new();
    for step in pages.iter().flat_map(|page| sections(page)).flat_map(|section| section.steps) {
        let entry = elsewhere(&step.command);
        used.extend(entry);
        let what_to_do = "run it in the sandbox (RUN_HERE) or list what covers it (ELSEWHERE)";
        assert!(entry.is_some() || is_run_here(&step), "{}: {}: {what_to_do}", step.place, step.command);
    }
    for (entry, (beginning, covered)) in ELSEWHERE.iter().enumerate() {
        assert!(used.contains(&entry), "no document shows {beginning}: remove it from the list");
        match covered {
            Covered::By(file) => {
                let text = fs::read_to_string(root().join(file)).unwrap();
                let word = beginning.split(' ').next_back().unwrap();
                assert!(text.contains(word), "{file} does not run {word}");
            }
            Covered::Because(reason) => assert!(!reason.is_empty()),
        }
    }
}

/// Runs the commands of a page, with its sections in parallel, each in its own sandbox.
fn run(page: &str) {
    thread::scope(|scope| {
        let sections: Vec<_> = sections(page)
            .into_iter()
            .map(|section| {
                scope.spawn(move || {
                    let sandbox = Sandbox::new();
                    for step in section.steps.iter().filter(|step| elsewhere(&step.command).is_none()) {
                        sandbox.run(step);
                    }
                    section.title
                })
            })
            .collect();
        for section in sections {
            if let Err(panic) = section.join() {
                std::panic::resume_unwind(panic);
            }
        }
    });
}

#[test]
fn the_commands_of_readme_print_what_it_shows() {
    run("README.md");
}

#[test]
fn the_commands_of_the_operating_guide_print_what_it_shows() {
    run("docs/operating.md");
}

#[test]
fn the_commands_of_every_other_page_print_what_it_shows() {
    for page in all().iter().filter(|page| !["README.md", "docs/operating.md"].contains(&page.as_str())) {
        run(page);
    }
}
