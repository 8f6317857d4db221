//! The baseline that docs/decisions/log.md compares with: one sled row per record. The key is SHA-256(multihash) and
//! the number of the peer, the value is the time. Every row is read to find those that have expired.

use super::{
    Baseline, Figures,
    data::{Data, Shape, miss},
    measure::{measure, percentiles},
};
use dhtstore_testkit::{files::bytes_below, process::Process};
use sha2::{Digest, Sha256};
use std::hint::black_box;

pub fn key(multihash: &[u8], peer: usize) -> [u8; 36] {
    let mut key = [0; 36];
    key[..32].copy_from_slice(&Sha256::digest(multihash));
    key[32..].copy_from_slice(&(peer as u32).to_be_bytes());
    key
}

pub fn run(records: usize) -> Figures {
    let data = Data::new(records, Shape::Usual);
    let dir = tempfile::tempdir().unwrap();
    let open = || {
        let config = sled::Config::new().path(dir.path()).cache_capacity(64 << 20).flush_every_ms(Some(500));
        let db = config.open().unwrap();
        (db.open_tree("records").unwrap(), db)
    };
    let before = Process::this().rss();
    let (tree, db) = open();
    let write = |time: u32| {
        measure(|| {
            for i in 0..records {
                let (multihash, peer) = data.record(i);
                tree.insert(key(&multihash, peer), &time.to_be_bytes()).unwrap();
            }
            db.flush().unwrap();
        })
    };
    let load = write(1);
    let loaded = Process::this().rss();
    let one_copy = bytes_below(dir.path());
    let refresh = write(2);
    let find = |multihash: &[u8]| tree.scan_prefix(Sha256::digest(multihash)).take(20).count();
    let (hit, missed) = (percentiles(data.hits(), find), percentiles(miss, find));
    drop((tree, db));
    let restart = measure(|| drop(black_box(open().0.first().unwrap())));
    let (tree, db) = open();
    let gc = measure(|| {
        let expired: Vec<sled::IVec> = tree.iter().keys().map(Result::unwrap).collect();
        for key in expired {
            tree.remove(key).unwrap();
        }
        db.flush().unwrap();
    });
    let (disk, memory) = (one_copy, loaded - before);
    Baseline { load, refresh, hit, missed, gc, restart, disk, memory }.figures(records)
}
