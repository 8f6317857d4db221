//! Lists of CIDs for `provide`, `unprovide` and `findprovs`: from arguments, a file or stdin.
//!
//! The whole list is checked before any of it is used. Until then it is kept in an unnamed temporary file: a list of
//! ten million CIDs takes no memory, and stdin is read once.

use super::{
    Context,
    ask::Server,
    error::{CliError, Code, Result},
};
use crate::{control::protocol::MAX_CIDS_BYTES, kad::cids};
use std::{
    fs::File,
    io::{self, BufRead, BufReader, BufWriter, Read, Seek, Write},
    path::{Path, PathBuf},
};

/// Bad lines that are shown; further ones are counted.
const SHOWN_MAX: u64 = 20;
/// Longest line, in bytes. A longer one is bad whatever it holds.
const LINE_MAX: u64 = 4096;
/// Number of characters of a bad line that are shown.
const SHOWN_CHARS: usize = 60;

/// Options that name the source of CIDs, flattened into a command's `Args`.
#[derive(clap::Args, Debug)]
pub struct CidArgs {
    /// CIDs, v0 or v1 in any base; `-` reads them from stdin, one per line
    #[arg(value_name = "CID", required_unless_present = "file")]
    pub cids: Vec<String>,
    /// Read CIDs from FILE, one per line; empty lines and lines that begin with # are ignored
    #[arg(long, value_name = "FILE")]
    pub file: Option<PathBuf>,
    /// Skip malformed CIDs and use the others
    #[arg(long)]
    pub skip_bad: bool,
}

/// A checked list.
#[derive(Debug)]
pub struct CidList {
    file: File,
    len: u64,
}

impl CidArgs {
    /// Reads the list and checks that a server answers. For a list from stdin the server is checked first, so that
    /// nobody types a list in vain. Otherwise the list comes first, so that its errors show even without a server.
    pub async fn read_for_server(&self, context: &Context) -> Result<CidList> {
        let from_stdin =
            self.cids.iter().map(AsRef::as_ref).chain(self.file.as_deref()).any(|text: &Path| text.as_os_str() == "-");
        if from_stdin {
            Server::connect(context).await?;
            return self.read(context);
        }
        let list = self.read(context)?;
        Server::connect(context).await?;
        Ok(list)
    }

    /// Reads and checks the whole list. Reports bad lines on stderr, each with its reason. Without `--skip-bad` a bad
    /// line fails the command with exit 65.
    pub fn read(&self, context: &Context) -> Result<CidList> {
        let file = tempfile::tempfile().map_err(|error| {
            CliError::cannot_create(format_args!(
                "cannot create a temporary file: {error}; set TMPDIR to a directory that you can write to"
            ))
        })?;
        let mut reader = Reader { out: BufWriter::new(file), good: 0, bad: 0, context };
        for (index, text) in self.cids.iter().enumerate() {
            if text == "-" {
                reader.lines("stdin", io::stdin().lock())?;
            } else {
                reader.take(text, || format!("argument {}", index + 1))?;
            }
        }
        match &self.file {
            Some(path) if path.as_os_str() == "-" => reader.lines("stdin", io::stdin().lock())?,
            Some(path) => {
                let name = path.display().to_string();
                let file = File::open(path).map_err(|error| CliError::unreadable(path, &error))?;
                reader.lines(&name, BufReader::new(file))?;
            }
            None => {}
        }
        reader.finish(self.skip_bad)
    }
}

struct Reader<'c> {
    out: BufWriter<File>,
    good: u64,
    bad: u64,
    context: &'c Context,
}

/// Returns whether a file begins with a UTF-16 byte order mark. None of its lines would be read correctly.
pub(crate) fn is_utf16(bytes: &[u8]) -> bool {
    bytes.starts_with(&[0xff, 0xfe]) || bytes.starts_with(&[0xfe, 0xff])
}

impl Reader<'_> {
    fn lines(&mut self, name: &str, mut input: impl BufRead) -> Result<()> {
        let mut line = Vec::new();
        for number in 1u64.. {
            line.clear();
            let read = input.by_ref().take(LINE_MAX).read_until(b'\n', &mut line);
            let read = read.map_err(|error| {
                CliError::data(format_args!("cannot read {name}: {error}; give a text file with one CID per line"))
            })?;
            if read == 0 {
                break;
            }
            if number == 1 && is_utf16(&line) {
                return Err(CliError::data(format_args!(
                    "cannot read {name}: it is in UTF-16 and must be in UTF-8; convert it with `iconv -f UTF-16 -t \
                     UTF-8`"
                )));
            }
            if line.len() as u64 == LINE_MAX && line.last() != Some(&b'\n') {
                skip_line(&mut input)?;
            }
            let text = String::from_utf8_lossy(&line);
            // Some editors put a byte order mark at the start of a file.
            let text = if number == 1 { text.strip_prefix('\u{feff}').unwrap_or(&text) } else { &text };
            let text = text.trim();
            if !text.is_empty() && !text.starts_with('#') {
                self.take(text, || format!("{name}, line {number}"))?;
            }
        }
        Ok(())
    }

    fn take(&mut self, text: &str, place: impl FnOnce() -> String) -> Result<()> {
        match cids::parse(text) {
            Ok(cid) => {
                self.good += 1;
                writeln!(self.out, "{cid}")?;
            }
            Err(reason) => {
                self.bad += 1;
                if self.bad <= SHOWN_MAX {
                    let shown: String = text.chars().take(SHOWN_CHARS).flat_map(char::escape_debug).collect();
                    let more = if text.chars().count() > SHOWN_CHARS { "…" } else { "" };
                    self.context.notice(format_args!("{}: {shown}{more}: {reason}", place()));
                }
            }
        }
        Ok(())
    }

    fn finish(self, skip_bad: bool) -> Result<CidList> {
        let (good, bad) = (self.good, self.bad);
        if bad > SHOWN_MAX {
            self.context.notice(format_args!("and {} more malformed CIDs", bad - SHOWN_MAX));
        }
        if bad > 0 && !skip_bad {
            let s = if bad == 1 { " is" } else { "s are" };
            if good == 0 {
                return Err(CliError::data("cannot use the list: it has no valid CID; correct it"));
            }
            return Err(CliError::new(
                Code::Data,
                format_args!(
                    "cannot use the list: {bad} CID{s} malformed ({good} good); correct the list, or add --skip-bad \
                     to use the good ones"
                ),
            ));
        }
        let mut file = self.out.into_inner().map_err(|error| CliError::from(error.into_error()))?;
        file.rewind()?;
        Ok(CidList { file, len: good })
    }
}

/// Skips the rest of an overlong line, in constant memory.
fn skip_line(input: &mut impl BufRead) -> io::Result<()> {
    loop {
        let available = input.fill_buf()?;
        if available.is_empty() {
            return Ok(());
        }
        match available.iter().position(|&byte| byte == b'\n') {
            Some(end) => {
                input.consume(end + 1);
                return Ok(());
            }
            None => {
                let all = available.len();
                input.consume(all);
            }
        }
    }
}

impl CidList {
    /// Number of CIDs.
    pub fn len(&self) -> u64 {
        self.len
    }

    /// Returns whether the list has no CIDs.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Returns the first CID, or an empty string if the list is empty.
    pub fn first(&mut self) -> Result<String> {
        self.file.rewind()?;
        let mut line = String::new();
        BufReader::new(&self.file).read_line(&mut line)?;
        Ok(line.trim_end().to_owned())
    }

    /// Iterates over the list from its start, in portions that each fit into a request.
    pub fn chunks(&mut self) -> Result<impl Iterator<Item = Result<Vec<String>>>> {
        self.file.rewind()?;
        let mut lines = BufReader::new(&self.file).lines();
        Ok(std::iter::from_fn(move || {
            let mut chunk = Vec::new();
            let mut bytes = 0;
            // The longest CID takes less than a kilobyte, so a portion stays below the limit of a request line.
            while bytes < MAX_CIDS_BYTES {
                match lines.next() {
                    Some(Ok(line)) => {
                        bytes += line.len() + 3;
                        chunk.push(line);
                    }
                    Some(Err(error)) => return Some(Err(error.into())),
                    None => break,
                }
            }
            (!chunk.is_empty()).then_some(Ok(chunk))
        }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::Global;

    const CID: &str = "bafybeie5gq4jxvzmsym6hjlwxej4rwdoxt7wadqvmmwbqi7r27fclha2va";

    fn read(text: &str, skip_bad: bool) -> Result<CidList> {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), text).unwrap();
        let args = CidArgs { cids: Vec::new(), file: Some(file.path().into()), skip_bad };
        args.read(&Context::new(Global { quiet: 1, ..Global::default() }))
    }

    #[test]
    fn empty_lines_and_comments_are_passed_over() {
        let mut list = read(&format!("# mine\n\n  {CID}  \r\n{CID}"), false).unwrap();
        assert_eq!(list.len(), 2);
        let chunks: Vec<_> = list.chunks().unwrap().map(Result::unwrap).collect();
        assert_eq!(chunks, [[CID, CID]]);
    }

    #[test]
    fn one_bad_line_stops_all_unless_it_is_skipped() {
        let text = format!("{CID}\nnonsense\n{}\n{CID}\n", "x".repeat(100_000));
        let error = read(&text, false).unwrap_err();
        assert_eq!(error.code(), Code::Data);
        assert!(error.to_string().contains("2 CIDs are malformed"), "{error}");
        assert_eq!(read(&text, true).unwrap().len(), 2);
    }

    #[test]
    fn a_long_list_comes_in_portions_that_fit_into_a_request() {
        let count = 2 * MAX_CIDS_BYTES / CID.len();
        let mut list = read(&format!("{CID}\n").repeat(count), false).unwrap();
        for _ in 0..2 {
            let chunks: Vec<Vec<String>> = list.chunks().unwrap().map(Result::unwrap).collect();
            assert_eq!(chunks.iter().map(Vec::len).sum::<usize>(), count);
            for chunk in chunks {
                let line = serde_json::to_string(&chunk).unwrap();
                assert!(line.len() < crate::control::protocol::MAX_REQUEST_LINE - 1024);
            }
        }
    }
}
