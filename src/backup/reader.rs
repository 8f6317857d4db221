//! Reads a backup. Its bytes are as untrusted as those of the network, so each line is bounded, and each file has one
//! of the known names. The backup is known to be whole only after [`Reader::next`] has returned `None`.

use super::{BEGINNING, BackupError, FileLine, FileName, Header, MAX_FILE_LINE, Trailer, VERSION};
use crate::store::dump::{self, MAX_LINE, Mark};
use serde::Deserialize;
use sha2::{Digest, Sha256};
use std::{
    error::Error,
    io::{BufRead, Read},
};

/// One of the parts that follow the header of a backup. They come in the order of the variants.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Part<'l> {
    /// A small file.
    File(FileName, Vec<u8>),
    /// The dump begins.
    Dump(dump::Header),
    /// A line of the dump, with its line end.
    Row(&'l [u8]),
    /// The dump ends.
    End(dump::End),
}

/// The part that follows.
#[derive(Clone, Copy, Debug)]
enum Next {
    /// The small file of this index.
    File(usize),
    Dump,
    Row,
    Trailer,
    Nothing,
}

/// Reads a backup line by line.
#[derive(Debug)]
pub struct Reader<R> {
    input: R,
    hash: Sha256,
    sha256: String,
    line: Vec<u8>,
    number: u64,
    read: u64,
    rows: u64,
    next: Next,
    header: Header,
}

impl<R: BufRead> Reader<R> {
    /// Begins to read a backup: reads its header.
    ///
    /// # Errors
    /// [`BackupError`].
    pub fn begin(input: R) -> Result<Self, BackupError> {
        let mut reader = Self {
            input,
            hash: Sha256::new(),
            sha256: String::new(),
            line: Vec::new(),
            number: 0,
            read: 0,
            rows: 0,
            next: Next::File(0),
            header: Header::default(),
        };
        reader.read_header()?;
        Ok(reader)
    }

    /// Returns the header.
    pub fn header(&self) -> &Header {
        &self.header
    }

    /// Returns the number of bytes read so far.
    pub fn bytes_read(&self) -> u64 {
        self.read
    }

    /// Returns the SHA-256 of all but the last line, in base16. Empty before the end.
    pub fn sha256(&self) -> &str {
        &self.sha256
    }

    /// Returns the next part. `None` at the end, once the checksum has proved that the backup is as it was written.
    ///
    /// # Errors
    /// [`BackupError`].
    #[expect(clippy::should_implement_trait, reason = "parts borrow from the reader")]
    pub fn next(&mut self) -> Result<Option<Part<'_>>, BackupError> {
        if let Next::File(number) = self.next {
            match self.header.files.get(number) {
                Some(&expected) => {
                    self.next = Next::File(number + 1);
                    return self.file(expected).map(Some);
                }
                None => self.next = Next::Dump,
            }
        }
        match self.next {
            Next::Dump => {
                self.read_hashed(MAX_LINE)?;
                self.next = Next::Row;
                match Mark::read(&self.line) {
                    Ok(Some(Mark::Header(header))) => Ok(Some(Part::Dump(header))),
                    Ok(_) => Err(self.damaged("a dump should begin here")),
                    Err(reason) => Err(self.damaged(reason)),
                }
            }
            Next::Row => self.row().map(Some),
            Next::Trailer => {
                self.trailer()?;
                Ok(None)
            }
            Next::File(_) | Next::Nothing => Ok(None),
        }
    }

    fn read_header(&mut self) -> Result<(), BackupError> {
        let read = self.read_hashed(MAX_LINE);
        if !self.line.starts_with(BEGINNING) {
            return match read {
                Err(error @ BackupError::Read(_)) => Err(error),
                _ => Err(BackupError::NotABackup(what_it_is(&self.line))),
            };
        }
        read?;
        #[derive(Deserialize)]
        struct Version {
            version: u32,
        }
        let Version { version } = serde_json::from_slice(&self.line).map_err(|e| self.damaged(e))?;
        if version != VERSION {
            return Err(BackupError::Version(version));
        }
        self.header = serde_json::from_slice(&self.line).map_err(|e| self.damaged(e))?;
        let files = &self.header.files;
        // Without duplicates, the known names also bound the number of files.
        if files.iter().enumerate().any(|(n, file)| files[..n].contains(file)) {
            return Err(self.damaged("it has the name of a file twice"));
        }
        Ok(())
    }

    fn file(&mut self, expected: FileName) -> Result<Part<'static>, BackupError> {
        self.read_hashed(MAX_FILE_LINE)?;
        let line: FileLine = serde_json::from_slice(&self.line).map_err(|e| self.damaged(e))?;
        if line.file != expected {
            return Err(self.damaged(format!("{} should be here", expected.name())));
        }
        let (_, content) = multibase::decode(&line.content).map_err(|e| self.damaged(e))?;
        if content.len() as u64 > expected.max_bytes() {
            let (name, max) = (expected.name(), expected.max_bytes());
            return Err(self.damaged(format!("{name} has more than {max} bytes")));
        }
        Ok(Part::File(expected, content))
    }

    fn row(&mut self) -> Result<Part<'_>, BackupError> {
        self.read_hashed(MAX_LINE)?;
        match Mark::read(&self.line) {
            Ok(None) => {
                self.rows += 1;
                Ok(Part::Row(&self.line))
            }
            Ok(Some(Mark::End(end))) if end.rows == self.rows => {
                self.next = Next::Trailer;
                Ok(Part::End(end))
            }
            Ok(Some(Mark::End(end))) => {
                Err(self.damaged(format!("it counts {} rows, but {} are before it", end.rows, self.rows)))
            }
            Ok(Some(Mark::Header(_))) => Err(self.damaged("a second dump begins")),
            Err(reason) => Err(self.damaged(reason)),
        }
    }

    fn trailer(&mut self) -> Result<(), BackupError> {
        let lines = self.number;
        self.sha256 = format!("{:x}", std::mem::take(&mut self.hash).finalize());
        self.read_line(MAX_LINE)?;
        if self.line != Trailer::line(lines, &self.sha256) {
            self.sha256.clear();
            return Err(BackupError::Checksum);
        }
        if !self.input.fill_buf()?.is_empty() {
            return Err(BackupError::Damaged { line: lines + 2, reason: "nothing should follow the last line".into() });
        }
        self.next = Next::Nothing;
        Ok(())
    }

    fn read_hashed(&mut self, max: usize) -> Result<(), BackupError> {
        self.read_line(max)?;
        self.hash.update(&self.line);
        Ok(())
    }

    /// Reads a line of at most `max` bytes, with its line end.
    fn read_line(&mut self, max: usize) -> Result<(), BackupError> {
        self.line.clear();
        let read = (&mut self.input).take(max as u64 + 1).read_until(b'\n', &mut self.line)?;
        self.read += read as u64;
        if !self.line.ends_with(b"\n") {
            return match read > max {
                true => Err(BackupError::Damaged {
                    line: self.number + 1,
                    reason: format!("longer than {max} bytes").into(),
                }),
                false => Err(BackupError::CutOff(self.number)),
            };
        }
        self.number += 1;
        Ok(())
    }

    fn damaged(&self, reason: impl Into<Box<dyn Error + Send + Sync>>) -> BackupError {
        BackupError::Damaged { line: self.number, reason: reason.into() }
    }
}

/// Returns a text for a file that is not a backup: what the file is, and what to do with it.
fn what_it_is(beginning: &[u8]) -> &'static str {
    const KNOWN: [(&[u8], &str); 6] = [
        (br#"{"dhtstore":"dump""#, "it is a dump, which `dhtstore load` reads"),
        (&[0x1f, 0x8b], "it is compressed; write `gzip -dc FILE | dhtstore restore -`"),
        (&[0x28, 0xb5, 0x2f, 0xfd], "it is compressed; write `zstd -dc FILE | dhtstore restore -`"),
        (&[0xfd, b'7', b'z'], "it is compressed; write `xz -dc FILE | dhtstore restore -`"),
        (b"age-encryption", "it is encrypted; write `age -d -i KEY FILE | dhtstore restore -`"),
        (b"-----BEGIN", "it is encrypted, or a key; decrypt it, and pipe the result to `dhtstore restore -`"),
    ];
    if beginning.is_empty() {
        return "it is empty; make another one, and check that the command which writes it ends with exit 0";
    }
    let known = KNOWN.iter().find(|(start, _)| beginning.starts_with(start));
    known.map_or("its first line is not that of `dhtstore backup`; check which file it is", |(_, what)| what)
}
