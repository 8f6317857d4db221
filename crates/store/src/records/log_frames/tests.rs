use super::*;
use std::fs;

/// Returns a temporary file, and the bytes of a file with the chunks 1 to 20.
fn written() -> (tempfile::NamedTempFile, Vec<u8>) {
    let file = tempfile::NamedTempFile::new().unwrap();
    let mut bytes = begin(7).unwrap();
    for key in 1..=20 {
        bytes.extend(frame_writer::frame(&LogFrame::Chunk { key, chunk: vec![key as u8; 300] }).unwrap());
    }
    (file, bytes)
}

fn keys(file: &tempfile::NamedTempFile, bytes: &[u8]) -> (Vec<u64>, usize) {
    fs::write(file.path(), bytes).unwrap();
    let (mut keys, mut damage) = (Vec::new(), 0);
    for item in LogFrames::open(file.path()).unwrap() {
        match item {
            Ok(LogFrame::Chunk { key, .. }) => keys.push(key),
            Ok(_) => {}
            Err(_) => damage += 1,
        }
    }
    (keys, damage)
}

#[test]
fn damage_to_any_bit_of_the_beginning_is_told_and_costs_no_chunk() {
    let (file, bytes) = written();
    assert_eq!(keys(&file, &bytes), ((1..=20).collect(), 0));
    for at in 0..begin(7).unwrap().len() {
        for bit in 0..8 {
            let mut bytes = bytes.clone();
            bytes[at] ^= 1 << bit;
            let (found, damage) = keys(&file, &bytes);
            assert_eq!(found, (1..=20).collect::<Vec<_>>(), "byte {at}, bit {bit}");
            assert!(damage > 0, "byte {at}, bit {bit}: no damage was reported");
        }
    }
}

#[test]
fn a_beginning_that_is_gone_costs_no_whole_chunk() {
    let (file, bytes) = written();
    for gone in 1..200 {
        let (found, damage) = keys(&file, &bytes[gone..]);
        assert!(found.len() >= 19 && damage > 0, "{gone} bytes: {found:?}");
    }
}

#[test]
fn a_file_of_another_version_is_refused() {
    let (file, _) = written();
    let header = frame_writer::frame(&LogFrame::Header { chunk_version: 9, from: 0 }).unwrap();
    fs::write(file.path(), [MAGIC, &header].concat()).unwrap();
    assert!(matches!(LogFrames::open(file.path()), Err(CodecError::Version(9))));
}
