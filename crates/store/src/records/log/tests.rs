use super::*;
use std::{path::Path, sync::atomic::AtomicBool, thread};

fn log(dir: &Path) -> Log {
    let db = sled::Config::new().path(dir.join("db")).open().unwrap();
    Log::open(db, dir.join("db"), dir.join("log")).unwrap()
}

fn chunk(n: u64) -> Vec<u8> {
    let multihash = [&[0x12, 0x20][..], &n.to_be_bytes(), &[7; 24]].concat();
    let mut body = Vec::new();
    let entry = entry::Entry { multihash: entry::Hashed::new(&multihash), peer: 1, removed: false };
    codec::append(&mut body, &entry).unwrap();
    codec::chunk(1, &body).unwrap()
}

#[test]
fn no_chunk_gets_the_key_of_another_while_the_ends_are_looked_at() {
    let dir = tempfile::tempdir().unwrap();
    let log = log(dir.path());
    let done = AtomicBool::new(false);
    thread::scope(|scope| {
        scope.spawn(|| {
            while !done.load(Ordering::Relaxed) {
                log.look_at_ends();
            }
        });
        // Four chunks for each second. A look at the ends must not hide the first of them from the second.
        let keys: Result<Vec<u64>, _> = (0..8_000).map(|n| log.append(1_000 + n / 4, &chunk(n.into()))).collect();
        done.store(true, Ordering::Relaxed);
        let expected: Vec<u64> = (0..8_000).map(|n| chunk_key(1_000 + n / 4, n % 4)).collect();
        assert_eq!(keys.unwrap(), expected);
    });
    for n in 0..8_000u32 {
        assert_eq!(log.get(chunk_key(1_000 + n / 4, n % 4)).unwrap(), Some(chunk(n.into())));
    }
    assert_eq!(log.count(), 8_000);
    assert_eq!((log.oldest(), log.newest()), (Some(chunk_key(1_000, 0)), Some(chunk_key(2_999, 3))));
}

#[test]
fn what_the_disk_does_not_tell_is_not_taken_for_what_it_does_not_have() {
    let dir = tempfile::tempdir().unwrap();
    let first = log(dir.path());
    let keys: Vec<u64> = (0..10).map(|n| first.append(1_000, &chunk(n)).unwrap()).collect();
    // Flush only the rows, as a power cut may leave them: no row says how far the segment is indexed.
    first.database.flush().unwrap();
    drop(first);
    let segment = dir.path().join("log/00000000.segment");
    let aside = dir.path().join("aside");
    std::fs::rename(&segment, &aside).unwrap();
    // A directory in place of the file gives a read error, as a broken disk does, and no end of file.
    std::fs::create_dir(&segment).unwrap();
    let blind = log(dir.path());
    assert_eq!((blind.unwritten(), blind.count()), (0, 10));
    assert!(blind.get(keys[0]).is_err());
    drop(blind);
    std::fs::remove_dir(&segment).unwrap();
    std::fs::rename(&aside, &segment).unwrap();
    let whole = log(dir.path());
    for (n, key) in (0..).zip(&keys) {
        assert_eq!(whole.get(*key).unwrap(), Some(chunk(n)));
    }
    drop(whole);
    // Without the file, the chunks count as never written.
    std::fs::remove_file(&segment).unwrap();
    let without = log(dir.path());
    assert_eq!((without.unwritten(), without.count()), (10, 0));
}

#[test]
fn what_comes_back_does_not_take_the_place_of_another_chunk() {
    let dir = tempfile::tempdir().unwrap();
    let log = log(dir.path());
    let key = log.append(1_000, &chunk(1)).unwrap();
    let row = log.database.read(tree::LOG, |tree| tree.get(Numbered::<8>::key(key))).unwrap().unwrap();
    let place = Location::of_row(&row).unwrap().unwrap();
    // Another chunk has the key, as after a run that began in the same second.
    log.found(key, place, &chunk(2)).unwrap();
    log.put_back(key, &chunk(3), &chunk(4)).unwrap();
    let held = |key: u64| log.get(key).unwrap();
    assert_eq!([held(key), held(key + 1), held(key + 2)], [1, 2, 4].map(|n| Some(chunk(n))));
    // The chunk that has the key may be found again, and may be written again with other peer numbers.
    log.found(key, place, &chunk(1)).unwrap();
    log.put_back(key, &chunk(1), &chunk(5)).unwrap();
    assert_eq!([held(key), held(key + 1), held(key + 2)], [5, 2, 4].map(|n| Some(chunk(n))));
    assert_eq!(log.count(), 3);
}
