//! Writes a backup.

use super::{FileLine, FileName, Header, Trailer};
use multibase::Base;
use serde::Serialize;
use sha2::{Digest, Sha256};
use std::io::{self, Write};

/// Writes the lines of a backup. The order is [`Writer::begin`], the lines of a dump from header to end,
/// [`Writer::finish`].
#[derive(Debug)]
pub struct Writer<W> {
    out: W,
    hash: Sha256,
    lines: u64,
}

impl<W: Write> Writer<W> {
    /// Begins a backup: writes the header and the small files, which must be those that the header lists.
    ///
    /// # Errors
    /// Those of `out`.
    pub fn begin(out: W, header: &Header, files: &[(FileName, Vec<u8>)]) -> io::Result<Self> {
        let mut writer = Self { out, hash: Sha256::new(), lines: 0 };
        writer.line(header)?;
        for (file, content) in files {
            writer.line(&FileLine { file: *file, content: multibase::encode(Base::Base64, content) })?;
        }
        Ok(writer)
    }

    /// Writes a line of the dump.
    ///
    /// # Errors
    /// Those of `out`.
    pub fn line<T: Serialize>(&mut self, line: &T) -> io::Result<()> {
        let line = serde_json::to_vec(line).map_err(io::Error::from)?;
        self.lines(&line)
    }

    /// Writes lines of the dump that are JSON already. The last may lack its line end.
    ///
    /// # Errors
    /// Those of `out`.
    pub fn lines(&mut self, lines: &[u8]) -> io::Result<()> {
        if lines.is_empty() {
            return Ok(());
        }
        self.put(lines)?;
        self.lines += lines.iter().filter(|byte| **byte == b'\n').count() as u64;
        if !lines.ends_with(b"\n") {
            self.put(b"\n")?;
            self.lines += 1;
        }
        Ok(())
    }

    fn put(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.hash.update(bytes);
        self.out.write_all(bytes)
    }

    /// Writes the last line and flushes. Returns `out`.
    ///
    /// # Errors
    /// Those of `out`.
    pub fn finish(mut self) -> io::Result<W> {
        let sha256 = format!("{:x}", self.hash.finalize());
        self.out.write_all(&Trailer::line(self.lines, &sha256))?;
        self.out.flush()?;
        Ok(self.out)
    }
}
