//! Mutations: each damages one file in one way. The number of a case determines its mutation.

use dhtstore_testkit::files;
use rand::{Rng, SeedableRng, rngs::StdRng, seq::IndexedRandom};
use std::{
    fmt, fs,
    os::unix::fs::FileExt,
    path::{Path, PathBuf},
};

/// A way to damage a file.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Kind {
    /// Cut off at a random length.
    Truncated,
    /// Zeros in place of up to 64 KiB.
    Zeroed,
    /// One to eight bits flipped.
    Flipped,
    /// Other bytes in place of up to 4 KiB.
    Garbage,
    /// Some bytes appended.
    Grown,
    /// Removed.
    Missing,
}

const KINDS: [Kind; 6] = [Kind::Truncated, Kind::Zeroed, Kind::Flipped, Kind::Garbage, Kind::Grown, Kind::Missing];
/// The classes of files, and the beginning of their paths.
const CLASSES: [(&str, &str); 12] = [
    ("records/db", "records/db"),
    ("records/snap", "records/snap"),
    ("records/ other", "records/"),
    ("node/db", "node/db"),
    ("node/snap", "node/snap"),
    ("node/ other", "node/"),
    ("export of node", "exports/node-"),
    ("journal", "exports/own-"),
    ("identity.key", "identity.key"),
    ("swarm.key", "swarm.key"),
    ("dhtstore.toml", "dhtstore.toml"),
    ("log", "log/"),
];

/// A mutation. See the module.
#[derive(Clone, Debug)]
pub struct Mutation {
    pub kind: Kind,
    /// Path of the file in the data directory.
    pub file: PathBuf,
    /// True if the file is damaged while the store is open.
    pub running: bool,
    seed: u64,
}

fn class(file: &Path) -> &'static str {
    let file = file.to_string_lossy();
    CLASSES.iter().find(|(_, prefix)| file.starts_with(prefix)).map_or("other", |(class, _)| class)
}

impl Mutation {
    /// Returns the mutation of a case. The databases and the log are damaged twice as often as other files.
    pub fn of_case(n: u64, template: &Path) -> Self {
        let mut random = StdRng::seed_from_u64(n);
        let all = files::below(template);
        let wanted = match n % 16 {
            12 => CLASSES[11].0,
            13 => CLASSES[0].0,
            14 => CLASSES[3].0,
            15 => "other",
            n => CLASSES[n as usize].0,
        };
        let of_class: Vec<_> = all.iter().filter(|file| class(file) == wanted).collect();
        let file = of_class.choose(&mut random).copied().or_else(|| all.choose(&mut random)).unwrap().clone();
        let kind = KINDS[(n / 16) as usize % KINDS.len()];
        // Files that only a start reads are damaged at rest.
        let at_rest = !file.starts_with("records")
            && !file.starts_with("node")
            && !file.starts_with("exports")
            && !file.starts_with("log");
        Self { kind, file, running: !at_rest && random.random_bool(0.35), seed: n }
    }

    pub fn class(&self) -> &'static str {
        class(&self.file)
    }

    /// Damages the file.
    pub fn apply(&self, dir: &Path) {
        let mut random = StdRng::seed_from_u64(self.seed ^ 0xdada);
        let path = dir.join(&self.file);
        if self.kind == Kind::Missing {
            // The file may be gone: sled replaces snapshots by newer ones.
            let _ = fs::remove_file(path);
            return;
        }
        let Ok(file) = fs::OpenOptions::new().read(true).write(true).open(&path) else { return };
        let len = file.metadata().unwrap().len();
        let at = random.random_range(0..len.max(1));
        match self.kind {
            Kind::Truncated => file.set_len(at).unwrap(),
            Kind::Grown => {
                let more: Vec<u8> = (0..random.random_range(1..5000)).map(|_| random.random()).collect();
                file.write_all_at(&more, len).unwrap();
            }
            Kind::Zeroed => {
                let bytes = (len - at.min(len)).min(1 << random.random_range(0..17));
                file.write_all_at(&vec![0; bytes as usize], at).unwrap();
            }
            Kind::Garbage => {
                let bytes = (len - at.min(len)).min(1 << random.random_range(0..13));
                let other: Vec<u8> = (0..bytes).map(|_| random.random()).collect();
                file.write_all_at(&other, at).unwrap();
            }
            Kind::Flipped => {
                for _ in 0..random.random_range(1..9) {
                    let at = random.random_range(0..len.max(1));
                    let mut byte = [0];
                    if file.read_at(&mut byte, at).unwrap() == 1 {
                        file.write_all_at(&[byte[0] ^ 1 << random.random_range(0..8)], at).unwrap();
                    }
                }
            }
            Kind::Missing => {}
        }
    }
}

impl fmt::Display for Mutation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let store = if self.running { "under a running store" } else { "at rest" };
        write!(f, "{:?} {} {store}", self.kind, self.file.display())
    }
}
