//! The fuzz target of the reader of backups.

use super::{FileName, Header, Part, Reader, Writer};
use crate::store::dump::{End, Header as DumpHeader};
use std::collections::BTreeMap;

/// Checks that a backup that can be read to its end has the same parts after it is written and read again.
pub(crate) fn backup(data: &[u8]) {
    let Some((header, files, rows)) = read(data) else { return };
    let again = write(&header, &files, &rows);
    assert!(read(&again) == Some((header, files, rows)), "its parts change when it is written again");
}

type Backup = (Header, Vec<(FileName, Vec<u8>)>, Vec<Vec<u8>>);

fn read(data: &[u8]) -> Option<Backup> {
    let mut reader = Reader::begin(data).ok()?;
    let (mut files, mut rows) = (Vec::new(), Vec::new());
    while let Some(part) = reader.next().ok()? {
        match part {
            Part::File(name, content) => {
                assert!(content.len() as u64 <= name.max_bytes());
                files.push((name, content));
            }
            Part::Row(line) => rows.push(line.to_vec()),
            Part::Dump(_) | Part::End(_) => {}
        }
    }
    assert_eq!(reader.bytes_read(), data.len() as u64);
    Some((reader.header().clone(), files, rows))
}

/// Returns a backup of these parts.
pub(super) fn write(header: &Header, files: &[(FileName, Vec<u8>)], rows: &[Vec<u8>]) -> Vec<u8> {
    let dump = DumpHeader {
        dhtstore: "dump".into(),
        version: 1,
        schema: 2,
        peer_id: None,
        time: header.time.clone(),
        tables: vec!["provided".into()],
    };
    let end = End { dhtstore: "end".into(), rows: rows.len() as u64, tables: BTreeMap::new(), damaged: 0 };
    let written = Writer::begin(Vec::new(), header, files).and_then(|mut writer| {
        writer.line(&dump)?;
        rows.iter().try_for_each(|row| writer.lines(row))?;
        writer.line(&end)?;
        writer.finish()
    });
    written.unwrap_or_else(|error| panic!("cannot write to memory: {error}"))
}

/// Returns a header for these files.
#[cfg(test)]
pub(super) fn header(files: &[(FileName, Vec<u8>)]) -> Header {
    Header {
        dhtstore: "backup".into(),
        version: super::VERSION,
        program: "0.1.0".into(),
        peer_id: "12D3KooWK99VoVxNE7XzyBwXEzW7xhK7Gpv85r9F3V3fyKSUKPH5".into(),
        time: "2026-01-31T12:00:00Z".into(),
        files: files.iter().map(|(file, _)| *file).collect(),
        records: true,
        ipns_sequences: Default::default(),
    }
}

/// Returns the seeds of the target.
#[cfg(test)]
pub(crate) fn seeds() -> Vec<(&'static str, &'static str, Vec<u8>)> {
    let files = [(FileName::Identity, vec![8, 1, 18, 1, 7]), (FileName::Config, b"profile = \"amino\"\n".to_vec())];
    let rows = [br#"{"table":"meta","name":"schema","value":"2"}"#.to_vec()];
    vec![
        ("backup", "small", write(&header(&files[..1]), &files[..1], &[])),
        ("backup", "files-and-a-row", write(&header(&files), &files, &rows)),
    ]
}
