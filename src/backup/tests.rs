use super::*;
use proptest::prelude::*;

/// A backup of these files and rows.
fn backup(files: &[(FileName, Vec<u8>)], rows: &[String]) -> Vec<u8> {
    let rows: Vec<Vec<u8>> = rows.iter().map(|row| row.as_bytes().to_vec()).collect();
    fuzzing::write(&fuzzing::header(files), files, &rows)
}

fn files() -> Vec<(FileName, Vec<u8>)> {
    vec![
        (FileName::Identity, vec![0, 1, 2, 255]),
        (FileName::SwarmKey, b"/key/swarm/psk/1.0.0/".to_vec()),
        (FileName::Config, b"[records]\nttl = \"3h\"\n".to_vec()),
    ]
}

fn small() -> Vec<u8> {
    backup(&files(), &[r#"{"table":"meta"}"#.to_owned(), r#"{"table":"x","y":"z"}"#.to_owned()])
}

/// What a whole backup holds.
#[derive(PartialEq, Debug, Default)]
struct Read {
    files: Vec<(FileName, Vec<u8>)>,
    rows: Vec<String>,
}

fn read(bytes: &[u8]) -> Result<Read, BackupError> {
    let mut reader = Reader::begin(bytes)?;
    let mut read = Read::default();
    while let Some(part) = reader.next()? {
        match part {
            Part::File(file, content) => read.files.push((file, content)),
            Part::Row(line) => read.rows.push(String::from_utf8_lossy(line).trim_end().to_owned()),
            Part::Dump(_) | Part::End(_) => {}
        }
    }
    assert_eq!(reader.bytes_read(), bytes.len() as u64);
    assert_eq!(reader.sha256().len(), 64);
    Ok(read)
}

#[test]
fn what_was_written_is_read() {
    let rows = vec![r#"{"table":"meta","name":"a\nb"}"#.to_owned(); 3];
    assert_eq!(read(&backup(&files(), &rows)).unwrap(), Read { files: files(), rows });
    assert_eq!(read(&backup(&files()[..1], &[])).unwrap().files.len(), 1);
}

#[test]
fn a_file_as_large_as_it_may_be_is_read_and_no_larger_one() {
    let with = |bytes: u64| backup(&[(FileName::Config, vec![b'x'; bytes as usize])], &[]);
    assert!(read(&with(FileName::Config.max_bytes())).is_ok());
    assert!(matches!(read(&with(FileName::Config.max_bytes() + 1)), Err(BackupError::Damaged { line: 2, .. })));
    let key = backup(&[(FileName::SwarmKey, vec![0; 5000])], &[]);
    assert!(matches!(read(&key), Err(BackupError::Damaged { line: 2, .. })));
}

#[test]
fn cut_off_anywhere_it_is_refused() {
    let whole = small();
    for cut in 0..whole.len() {
        assert!(read(&whole[..cut]).is_err(), "{cut}");
    }
    assert!(matches!(read(&whole[..whole.len() - 1]), Err(BackupError::CutOff(_))));
}

#[test]
fn with_any_bit_flipped_it_is_refused() {
    let whole = small();
    for at in 0..whole.len() {
        for bit in 0..8 {
            let mut bytes = whole.clone();
            bytes[at] ^= 1 << bit;
            assert!(read(&bytes).is_err(), "bit {bit} of byte {at}");
        }
    }
}

#[test]
fn what_follows_the_end_is_refused() {
    for more in [&b"\n"[..], b"x", &small()] {
        assert!(matches!(read(&[&small(), more].concat()), Err(BackupError::Damaged { .. })));
    }
}

#[test]
fn what_is_no_backup_is_called_by_its_name() {
    for (bytes, word) in [
        (&b""[..], "it is empty"),
        (b"hello\n", "first line"),
        (b"\x1f\x8b\x08", "gzip"),
        (br#"{"dhtstore":"dump","version":1}"#, "load"),
        (&[0; 100_000], "first line"),
    ] {
        let error = read(bytes).unwrap_err();
        assert!(matches!(error, BackupError::NotABackup(_)) && error.to_string().contains(word), "{error}");
    }
    let later = String::from_utf8(small()).unwrap().replacen("\"version\":1", "\"version\":2", 1);
    let error = read(later.as_bytes()).unwrap_err();
    assert!(matches!(error, BackupError::Version(2)) && error.to_string().contains("install"), "{error}");
}

/// Returns a backup of these lines with a correct checksum, as an attacker could make it.
fn forged(lines: &[&str]) -> Vec<u8> {
    let mut text: Vec<u8> = lines.iter().flat_map(|line| [line.as_bytes(), b"\n"].concat()).collect();
    use sha2::{Digest, Sha256};
    let sha256 = format!("{:x}", Sha256::digest(&text));
    text.extend(Trailer::line(lines.len() as u64, &sha256));
    text
}

#[test]
fn a_forged_one_names_no_other_file_and_takes_no_more_memory_than_a_line() {
    let whole = String::from_utf8(backup(&files()[..1], &[])).unwrap();
    let lines: Vec<&str> = whole.lines().collect();
    let lines = &lines[..lines.len() - 1];
    assert!(read(&forged(lines)).is_ok());
    let with = |number: usize, line: &str| {
        let mut lines = lines.to_vec();
        lines[number] = line;
        read(&forged(&lines)).unwrap_err()
    };
    for name in ["../identity.key", "/etc/passwd", "lock", "identity.key\\u0000", ""] {
        let header = lines[0].replace("identity.key", name);
        assert!(matches!(with(0, &header), BackupError::Damaged { line: 1, .. }), "{name}");
        let file = lines[1].replace("identity.key", name);
        assert!(matches!(with(1, &file), BackupError::Damaged { line: 2, .. }), "{name}");
    }
    let twice = lines[0].replace(r#"["identity.key"]"#, r#"["identity.key","identity.key"]"#);
    assert!(matches!(with(0, &twice), BackupError::Damaged { line: 1, .. }));
    assert!(matches!(with(1, &lines[1].replace("identity", "swarm")), BackupError::Damaged { line: 2, .. }));
    let long = format!(r#"{{"file":"identity.key","content":"m{}"}}"#, "A".repeat(MAX_FILE_LINE));
    assert!(matches!(with(1, &long), BackupError::Damaged { .. }));
    let row = format!(r#"{{"table":"{}"}}"#, "x".repeat(crate::store::dump::MAX_LINE));
    assert!(matches!(with(3, &row), BackupError::Damaged { line: 4, .. }));
    let end = lines[3].replace("\"rows\":0", "\"rows\":1");
    assert!(matches!(with(3, &end), BackupError::Damaged { line: 4, .. }));
    let deep = "[".repeat(60_000);
    assert!(matches!(with(0, &format!(r#"{{"dhtstore":"backup","version":{deep}"#)), BackupError::Damaged { .. }));
}

proptest! {
    #[test]
    fn no_bytes_panic(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
        let _ = read(&bytes);
        let _ = read(&[BEGINNING, &bytes].concat());
    }

    #[test]
    fn damaged_in_any_way_it_is_never_taken_for_another(
        at in any::<prop::sample::Index>(), length in 0usize..40, put in proptest::collection::vec(any::<u8>(), 0..40),
    ) {
        let whole = small();
        let at = at.index(whole.len());
        let mut bytes = whole.clone();
        bytes.splice(at..(at + length).min(whole.len()), put);
        if let Ok(read) = read(&bytes) {
            prop_assert_eq!(bytes, whole, "{:?}", read);
        }
    }

    #[test]
    fn rows_of_any_text_come_back(texts in proptest::collection::vec(".{0,40}", 0..20)) {
        let rows: Vec<String> = texts.iter().map(|text| serde_json::json!({ "table": text }).to_string()).collect();
        prop_assert_eq!(read(&backup(&files(), &rows)).unwrap().rows, rows);
    }
}
