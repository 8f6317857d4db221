//! Decoders of what lies on the disk, for the fuzz targets.

use super::{
    codec::{self, CHUNK_VERSION},
    jobs::JobRow,
    meta::Floor,
    provided::{exports, own::OwnRow, trie::Trie},
    records::{
        book::{Book, PeerRow},
        entry,
        log::segments::Location,
        log_frames::{LogFrame, LogFrames},
    },
    routing::SavedRow,
    schema::v2,
    values::ValueRow,
};
use bincode::{Decode, Encode};
use std::{collections::BTreeMap, fmt::Debug};

/// Decodes a row: the first byte selects its kind, the rest is its value.
pub fn rows(data: &[u8]) {
    let Some((&which, value)) = data.split_first() else { return };
    match which {
        0 => {
            comes_back::<PeerRow>(value);
            let _ = Book::new(10, 3600).load(7, value, 1_000_000);
        }
        1 => chunk(value),
        2 => {
            if let Ok(row) = codec::decode::<JobRow>(value) {
                let Ok(bytes) = codec::encode(&row) else { panic!("a job's row cannot be written again") };
                assert!(codec::decode::<JobRow>(&bytes).is_ok());
            }
        }
        3 => {
            comes_back::<Vec<SavedRow>>(value);
            codec::decode::<Vec<SavedRow>>(value).unwrap_or_default().into_iter().for_each(|row| drop(row.into_peer()));
        }
        4 => comes_back::<Floor>(value),
        5 => comes_back::<u64>(value),
        6 => comes_back::<Vec<OwnRow>>(value),
        7 => {
            let row = [&[codec::LOCATION_VERSION], value].concat();
            if let Ok(Some(location)) = Location::of_row(&row) {
                let Ok(bytes) = location.to_row() else { panic!("a place cannot be written again") };
                assert_eq!(Location::of_row(&bytes).ok().flatten(), Some(location));
            }
        }
        8 => values_row(value),
        9 => v2::says_the_same(value),
        _ => trie(value),
    }
}

/// If the value can be decoded, asserts that it is the same after it is encoded and decoded again.
fn comes_back<T: Encode + Decode<()> + PartialEq + Debug>(value: &[u8]) {
    let Ok(row) = codec::decode::<T>(value) else { return };
    // A value may exceed the limit if it was encoded less compactly than we do.
    let Ok(bytes) = codec::encode(&row) else { panic!("cannot be written again: {row:?}") };
    match codec::decode::<T>(&bytes) {
        Ok(again) => assert_eq!(again, row),
        Err(error) => panic!("{error}: {row:?}"),
    }
}

/// Decodes a row of the tree `values`, with and without the frame around it.
fn values_row(payload: &[u8]) {
    let _ = codec::read_frame::<ValueRow>(&mut &*payload);
    comes_back::<ValueRow>(payload);
    let Ok(length) = u32::try_from(payload.len()) else { return };
    let frame = [&length.to_le_bytes()[..], &crc32fast::hash(payload).to_le_bytes(), payload].concat();
    let (bare, framed) = (codec::decode::<ValueRow>(payload).ok(), codec::read_frame::<ValueRow>(&mut &frame[..]).ok());
    assert_eq!(framed.flatten(), bare.filter(|_| payload.len() <= codec::LIMIT));
}

/// Decodes a chunk of the log, with a valid checksum.
fn chunk(body: &[u8]) {
    let _ = entry::decode(body);
    let bytes = [&[CHUNK_VERSION], &crc32fast::hash(body).to_le_bytes()[..], body].concat();
    let Ok(entries) = entry::decode(&bytes) else { return };
    let mut again = Vec::new();
    for entry in &entries {
        assert!(codec::append(&mut again, entry).is_ok());
    }
    let Ok(again) = codec::chunk(u32::try_from(entries.len()).unwrap_or(u32::MAX), &again) else { panic!("no chunk") };
    match entry::decode(&again) {
        Ok(read) => assert_eq!(read, entries),
        Err(error) => panic!("{error}: {entries:?}"),
    }
}

/// Loads own CIDs from leaves of key (33 bytes), length (2 bytes) and value. Asserts that a trie reads back as it was
/// written.
fn trie(mut rest: &[u8]) {
    let mut stored: BTreeMap<Vec<u8>, Vec<u8>> = BTreeMap::new();
    while let Some((key, more)) = rest.split_first_chunk::<33>() {
        let Some((length, more)) = more.split_first_chunk::<2>() else { break };
        let (value, more) = more.split_at(usize::from(u16::from_be_bytes(*length)).min(more.len()));
        stored.insert(key.to_vec(), value.to_vec());
        rest = more;
    }
    let mut written = stored.clone();
    let mut trie = Trie::load(stored.into_iter(), |_, _| {});
    let Ok(stale) = trie.take_stale() else { panic!("a trie cannot be written") };
    for (key, value) in stale.rows {
        match value {
            Some(value) => written.insert(key.to_vec(), value),
            None => written.remove(&key[..]),
        };
    }
    let again = Trie::load(written.into_iter(), |_, _| {});
    let all = |trie: &Trie| trie.from(&[0; 32]).map(|(at, row)| (*at, row.clone())).collect::<Vec<_>>();
    assert_eq!(all(&again), all(&trie));
}

/// Reads an export, a segment and a journal. If the first byte is odd, the input is a list of payloads with a length of
/// two bytes each, and their frames are made here. If it is even, the input is the file.
pub fn exports(data: &[u8]) {
    let Some((&which, mut rest)) = data.split_first() else { return };
    let mut file = Vec::new();
    if which & 1 == 0 {
        file.extend_from_slice(rest);
    }
    while which & 1 == 1
        && let Some((length, more)) = rest.split_first_chunk::<2>()
    {
        let (payload, more) = more.split_at(usize::from(u16::from_be_bytes(*length)).min(more.len()));
        file.extend_from_slice(&(payload.len() as u32).to_le_bytes());
        file.extend_from_slice(&crc32fast::hash(payload).to_le_bytes());
        file.extend_from_slice(payload);
        rest = more;
    }
    let _ = exports::read_export(&file[..]);
    let mut segment = &file[..];
    while let Ok(Some(item)) = codec::read_frame::<LogFrame>(&mut segment) {
        if let LogFrame::Chunk { chunk, .. } = item {
            let _ = entry::decode(&chunk);
        }
    }
    let mut journal = BTreeMap::new();
    // Both readers go on behind damage.
    let Ok(on_disk) = tempfile::NamedTempFile::new() else { return };
    if std::fs::write(on_disk.path(), &file).is_err() {
        return;
    }
    if let Ok(items) = LogFrames::open(on_disk.path()) {
        for item in items.flatten() {
            if let LogFrame::Chunk { chunk, .. } = item {
                let _ = entry::decode(&chunk);
            }
        }
    }
    let _ = exports::read_journal(on_disk.path(), &mut journal);
    for row in journal.into_values().flatten() {
        assert!(row.read().is_some(), "a row of the journal has no CID: {row:?}");
    }
}

/// Returns what our own encoders write, as seeds: target, name, bytes.
#[allow(clippy::unwrap_used, reason = "for tests alone")]
pub fn seeds() -> Vec<(&'static str, &'static str, Vec<u8>)> {
    use super::{
        records::entry::{Entry, Hashed},
        routing::{SavedPeer, rows as routing_rows},
    };
    use crate::{
        clock::UnixTime,
        kad::PeerInfo,
        provided::exports::{Change, Exports},
    };
    let multihash = [&[0x12, 0x20], &[9; 32][..]].concat();
    let id = libp2p_identity::PeerId::from_bytes(&multihash).unwrap();
    let addrs: Vec<multiaddr::Multiaddr> =
        ["/ip4/1.2.3.4/tcp/4001", "/dns4/a.example/udp/4001/quic-v1"].map(|a| a.parse().unwrap()).to_vec();
    let binary: Vec<Vec<u8>> = addrs.iter().map(|addr| addr.to_vec()).collect();
    let peer =
        PeerRow { peer: id.to_bytes(), wan: binary.clone(), lan: binary[..1].to_vec(), announced: 1_700_000_000 };
    let job = JobRow { started: 1_700_000_000, took_ms: 17, outcome: "wan: 3 peers".into(), ok: true };
    let saved = SavedPeer { peer: PeerInfo { id, addrs }, heard: UnixTime(1_700_000_000) };
    let saved_rows = routing_rows(std::slice::from_ref(&saved)).remove(0);
    let floor = Floor { chunks: Some(3), oldest: Some(7 << 32), newest: Some(9 << 32 | 1), last_seen: 9 };
    let own = |n: u8| {
        let multihash = [&[0x01, 0x55, 0x12, 0x20], &[n; 32][..]].concat();
        OwnRow { cid: multihash.into(), added: 1, announced: (n > 1).then_some(2), confirmed: 3 }
    };
    let owns = vec![own(1), own(2)];
    let value = ValueRow::seed(1_700_000_000, b"a record of some name");
    let mut entries = Vec::new();
    codec::append(&mut entries, &Entry { multihash: Hashed::new(&multihash), peer: 7, removed: false }).unwrap();
    codec::append(&mut entries, &Entry { multihash: Hashed::new(&multihash), peer: 7, removed: true }).unwrap();
    let chunk = codec::chunk(2, &entries).unwrap();

    let mut trie = Trie::default();
    for row in &owns {
        trie.put(row.read().unwrap().1, row.clone());
    }
    let mut on_disk = Vec::new();
    for (key, value) in trie.take_stale().unwrap().rows {
        let value = value.unwrap_or_default();
        on_disk.extend([&key[..], &(value.len() as u16).to_be_bytes(), &value].concat());
    }

    let dir = tempfile::tempdir().unwrap();
    let mut files = Exports::open(dir.path().into());
    files.append(&Change::Put(&owns)).unwrap();
    files.append(&Change::Take(std::slice::from_ref(&multihash))).unwrap();
    let journal = only_file(dir.path());
    files.export(UnixTime(5), owns.iter(), &[(crate::kad::Dht::Wan, vec![saved])]).unwrap();
    let export = only_file(dir.path());
    // The same file with lengths of two bytes and without checksums.
    let bare = |file: &[u8]| {
        let (mut rest, mut bare) = (file, vec![1]);
        while let Some((length, more)) = rest.split_first_chunk::<4>() {
            let length = u32::from_le_bytes(*length) as u16;
            let (payload, more) = more[4..].split_at(length.into());
            bare.extend([&length.to_be_bytes()[..], payload].concat());
            rest = more;
        }
        bare
    };
    let row = |which: u8, value: &[u8]| [&[which], value].concat();
    vec![
        ("rows", "peer", row(0, &codec::encode(&peer).unwrap())),
        ("rows", "chunk", row(1, &chunk)),
        ("rows", "chunk-body", row(1, &chunk[5..])),
        ("rows", "job", row(2, &codec::encode(&job).unwrap())),
        ("rows", "routing", row(3, &codec::encode(&saved_rows).unwrap())),
        ("rows", "floor", row(4, &codec::encode(&floor).unwrap())),
        ("rows", "number", row(5, &codec::encode(&u64::MAX).unwrap())),
        ("rows", "own", row(6, &codec::encode(&owns).unwrap())),
        ("rows", "place", row(7, &Location { segment: 3, offset: 1 << 20, len: 30_000 }.to_row().unwrap()[1..])),
        ("rows", "trie", row(10, &on_disk)),
        ("rows", "value", row(8, &codec::encode(&value).unwrap())),
        ("rows", "value-frame", row(8, &codec::frame(&value).unwrap())),
        ("rows", "chunk-1-body", row(9, &v2::seed(&multihash))),
        ("exports", "journal", row(0, &journal)),
        ("exports", "journal-bare", bare(&journal)),
        ("exports", "export", row(0, &export)),
        ("exports", "export-bare", bare(&export)),
    ]
}

/// Returns the bytes of the first file of a directory by name.
#[allow(clippy::unwrap_used, reason = "for tests alone")]
fn only_file(dir: &std::path::Path) -> Vec<u8> {
    let mut paths: Vec<_> = std::fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path()).collect();
    paths.sort();
    // `node-….export` sorts before `own-….journal`, so this is the export once there is one.
    std::fs::read(&paths[0]).unwrap()
}
