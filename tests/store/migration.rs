//! Migration of data directories of earlier versions to the current schema.

use dhtstore::{
    clock::{ManualClock, UnixTime},
    store::{Settings, Store, data_dir::Lock, migration::SCHEMA},
};
use dhtstore_testkit::files::copy;
use libp2p::PeerId;
use multibase::Base;
use std::{fs, path::Path};

/// A data directory that an earlier version has written.
struct Fixture {
    schema: u32,
    /// A time shortly after it was written, Unix seconds.
    then: u32,
    /// Output of that version's `dump providers`.
    dump: &'static str,
    records: usize,
}

const FIXTURES: [Fixture; 2] = [
    Fixture {
        schema: 1,
        then: 1_795_387_500,
        dump: include_str!("../../migrations/fixtures/schema-1.ndjson"),
        records: 46,
    },
    Fixture {
        schema: 2,
        then: 1_795_515_000,
        dump: include_str!("../../migrations/fixtures/schema-2.ndjson"),
        records: 60,
    },
];

impl Fixture {
    /// Copies its files to `to`.
    fn write(&self, to: &Path) {
        let name = format!("migrations/fixtures/schema-{}", self.schema);
        copy(&Path::new(env!("CARGO_MANIFEST_DIR")).join(name), to);
    }
}

/// Parses a dump: multihash, provider and addresses of each record.
fn expected(dump: &str) -> Vec<(Vec<u8>, PeerId, Vec<String>)> {
    let row = |line: &str| {
        let row: serde_json::Value = serde_json::from_str(line).unwrap();
        let text = |name: &str| row[name].as_str().unwrap().to_owned();
        let addrs = row["addresses"].as_array().unwrap().iter().map(|a| a.as_str().unwrap().to_owned());
        let multihash = Base::Base58Btc.decode(text("multihash")).unwrap();
        (multihash, text("provider").parse().unwrap(), addrs.collect())
    };
    dump.lines().map(row).collect()
}

/// Opens the directory, compares its records with the dump, and closes it.
async fn opens_with_all_of_it(dir: &Path, fixture: &Fixture) {
    let lock = Lock::acquire(dir).unwrap();
    let store = Store::open(&lock, Settings::default(), ManualClock::at(UnixTime(fixture.then))).unwrap();
    assert!(store.records.wait_replayed());
    let stat = store.stat();
    assert_eq!((stat.schema, stat.records, stat.provided), (SCHEMA, fixture.records as u64, 1), "{stat:?}");
    assert_eq!((stat.notes, stat.counters["damaged"]), (Vec::new(), 0));
    let expected = expected(fixture.dump);
    assert_eq!(expected.len(), fixture.records);
    for (multihash, provider, addrs) in expected {
        let found = store.records.providers_now(&multihash, 20, 0);
        assert_eq!(found.len(), 1);
        assert_eq!(found[0].peer, provider);
        assert_eq!(found[0].addrs.iter().map(ToString::to_string).collect::<Vec<_>>(), addrs);
    }
    store.close().await.unwrap();
}

/// First byte of a row that holds the location of its chunk.
const LOCATION: u8 = 3;

/// Returns the first byte of each row of the log.
fn versions(dir: &Path) -> Vec<u8> {
    let db = sled::open(dir.join("records")).unwrap();
    db.open_tree("log").unwrap().iter().values().map(|chunk| chunk.unwrap()[0]).collect()
}

fn set_schema(dir: &Path, schema: u8) {
    let db = sled::open(dir.join("node")).unwrap();
    db.open_tree("meta").unwrap().insert("schema", &[1, schema]).unwrap();
}

#[tokio::test]
async fn every_schema_keeps_its_records_in_the_current_one() {
    for fixture in &FIXTURES {
        let tmp = tempfile::tempdir().unwrap();
        fixture.write(tmp.path());
        let exports = || fs::read_dir(tmp.path().join("exports")).unwrap().flatten().map(|e| e.file_name()).max();
        let before = exports();
        assert_eq!(versions(tmp.path()), [fixture.schema as u8]);
        opens_with_all_of_it(tmp.path(), fixture).await;
        assert_eq!(versions(tmp.path()), [LOCATION]);
        assert_ne!(exports(), before, "an export must be made before the step");
        // The second open has nothing left to migrate.
        opens_with_all_of_it(tmp.path(), fixture).await;
    }
}

#[tokio::test]
async fn a_step_that_was_cut_off_is_taken_again() {
    for fixture in &FIXTURES {
        let tmp = tempfile::tempdir().unwrap();
        fixture.write(tmp.path());
        opens_with_all_of_it(tmp.path(), fixture).await;
        // All chunks are written, but the version is not raised. Later, one of the old chunks is back, too.
        set_schema(tmp.path(), fixture.schema as u8);
        opens_with_all_of_it(tmp.path(), fixture).await;
        let old = tempfile::tempdir().unwrap();
        fixture.write(old.path());
        let (key, chunk) = {
            let db = sled::open(old.path().join("records")).unwrap();
            db.open_tree("log").unwrap().first().unwrap().unwrap()
        };
        sled::open(tmp.path().join("records")).unwrap().open_tree("log").unwrap().insert(key, chunk).unwrap();
        set_schema(tmp.path(), fixture.schema as u8);
        opens_with_all_of_it(tmp.path(), fixture).await;
        assert_eq!(versions(tmp.path()), [LOCATION]);
    }
}

#[tokio::test]
async fn a_lost_schema_version_is_taken_for_the_first() {
    for fixture in &FIXTURES {
        let tmp = tempfile::tempdir().unwrap();
        fixture.write(tmp.path());
        fs::remove_dir_all(tmp.path().join("node")).unwrap();
        let lock = Lock::acquire(tmp.path()).unwrap();
        let store = Store::open(&lock, Settings::default(), ManualClock::at(UnixTime(fixture.then))).unwrap();
        assert!(store.records.wait_replayed());
        let stat = store.stat();
        assert_eq!((stat.schema, stat.records, stat.provided), (SCHEMA, fixture.records as u64, 1));
    }
}
