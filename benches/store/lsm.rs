//! The same rows in an LSM store like leveldb, which Kubo uses, with a bloom filter.

use super::{
    Baseline, Figures,
    data::{Data, Shape, miss},
    measure::{measure, percentiles},
    rows::key,
};
use dhtstore_testkit::{files::bytes_below, process::Process};
use rusty_leveldb::{BloomPolicy, DB, LdbIterator, Options};
use sha2::{Digest, Sha256};
use std::{cell::RefCell, hint::black_box, rc::Rc};

pub fn run(records: usize) -> Figures {
    let data = Data::new(records, Shape::Usual);
    let dir = tempfile::tempdir().unwrap();
    let open = || {
        let options = Options {
            write_buffer_size: 64 << 20,
            filter_policy: Rc::new(Box::new(BloomPolicy::new(10))),
            // No compression: digests do not compress.
            compressor: 0,
            ..Options::default()
        };
        DB::open(dir.path(), options).unwrap()
    };
    let before = Process::this().rss();
    let db = RefCell::new(open());
    let write = |time: u32| {
        measure(|| {
            let mut db = db.borrow_mut();
            for i in 0..records {
                let (multihash, peer) = data.record(i);
                db.put(&key(&multihash, peer), &time.to_be_bytes()).unwrap();
            }
            db.flush().unwrap();
        })
    };
    let load = write(1);
    let loaded = Process::this().rss();
    let one_copy = bytes_below(dir.path());
    let refresh = write(2);
    let find = |multihash: &[u8]| {
        let prefix = Sha256::digest(multihash);
        let mut rows = db.borrow_mut().new_iter().unwrap();
        rows.seek(&prefix);
        let mut found = 0;
        while found < 20 && rows.current().is_some_and(|(key, _)| key.starts_with(&prefix)) {
            found += 1;
            rows.advance();
        }
        found
    };
    let (hit, missed) = (percentiles(data.hits(), find), percentiles(miss, find));
    db.borrow_mut().close().unwrap();
    drop(db);
    let restart = measure(|| drop(black_box(open().get(b"key"))));
    let mut db = open();
    let gc = measure(|| {
        let mut rows = db.new_iter().unwrap();
        let mut expired = Vec::new();
        while let Some((key, _)) = rows.next() {
            expired.push(key);
        }
        expired.iter().for_each(|key| db.delete(key).unwrap());
        db.flush().unwrap();
    });
    let (disk, memory) = (one_copy, loaded - before);
    Baseline { load, refresh, hit, missed, gc, restart, disk, memory }.figures(records)
}
