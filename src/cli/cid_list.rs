//! Lists of CIDs as `provide`, `unprovide` and `findprovs` take them: arguments, a file, stdin.
//!
//! The whole list is checked before any of it is used; meanwhile it lies in an unnamed temporary file, so that a list
//! of ten million takes no memory and stdin need not be read twice.

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

/// Bad lines that are shown; the others are counted.
const SHOWN_MAX: u64 = 20;
/// A longer line is bad whatever it holds.
const LINE_MAX: u64 = 4096;
/// Of a bad line so much is shown.
const SHOWN_CHARS: usize = 60;

/// Where CIDs come from, to be flattened into a command's `Args`.
#[derive(clap::Args, Debug)]
pub struct CidArgs {
    /// CIDs, v0 or v1 in any base; `-` reads them from stdin, one per line
    #[arg(value_name = "CID", required_unless_present = "file")]
    pub cids: Vec<String>,
    /// Read CIDs from this file, one per line; empty lines and lines that begin with # are passed over
    #[arg(long, value_name = "FILE")]
    pub file: Option<PathBuf>,
    /// Take the good lines even if others are bad
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
    /// Checks that a server answers, and reads the list: the server first if the list is typed or piped in, so that
    /// nobody types a list that cannot be taken; else the list first, as it can be wrong without a server.
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

    /// Reads and checks the whole list. Bad lines are told on stderr, each with its reason; without `--skip-bad` they
    /// are exit 65 and nothing is done.
    pub fn read(&self, context: &Context) -> Result<CidList> {
        let file = tempfile::tempfile().map_err(|error| {
            CliError::cannot_create(format_args!("cannot create a temporary file: {error}; set TMPDIR"))
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

/// Whether a file begins as text in UTF-16 does. Not one line of it would be read as it is meant.
pub(crate) fn is_utf16(bytes: &[u8]) -> bool {
    bytes.starts_with(&[0xff, 0xfe]) || bytes.starts_with(&[0xfe, 0xff])
}

impl Reader<'_> {
    fn lines(&mut self, name: &str, mut input: impl BufRead) -> Result<()> {
        let mut line = Vec::new();
        for number in 1u64.. {
            line.clear();
            let read = input.by_ref().take(LINE_MAX).read_until(b'\n', &mut line);
            if read.map_err(|error| CliError::data(format_args!("{name}: {error}")))? == 0 {
                break;
            }
            if number == 1 && is_utf16(&line) {
                return Err(CliError::data(format_args!(
                    "{name}: this is text in UTF-16, and a list is in UTF-8; convert it: `iconv -f UTF-16 -t UTF-8`"
                )));
            }
            if line.len() as u64 == LINE_MAX && line.last() != Some(&b'\n') {
                skip_line(&mut input)?;
            }
            let text = String::from_utf8_lossy(&line);
            // Editors of other systems begin a file with a byte order mark.
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
            self.context.notice(format_args!("and {} more", bad - SHOWN_MAX));
        }
        if bad > 0 && !skip_bad {
            let s = if bad == 1 { " is" } else { "s are" };
            return Err(CliError::new(
                Code::Data,
                format_args!(
                    "{bad} CID{s} malformed, so nothing was done with the other {good}; mend them, or use --skip-bad"
                ),
            ));
        }
        let mut file = self.out.into_inner().map_err(|error| CliError::from(error.into_error()))?;
        file.rewind()?;
        Ok(CidList { file, len: good })
    }
}

/// Reads on to the end of an overlong line, in constant memory.
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
    /// How many CIDs.
    pub fn len(&self) -> u64 {
        self.len
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// The first, which there is unless [`CidList::is_empty`].
    pub fn first(&mut self) -> Result<String> {
        self.file.rewind()?;
        let mut line = String::new();
        BufReader::new(&self.file).read_line(&mut line)?;
        Ok(line.trim_end().to_owned())
    }

    /// From the start, in portions that fit into a request.
    pub fn chunks(&mut self) -> Result<impl Iterator<Item = Result<Vec<String>>>> {
        self.file.rewind()?;
        let mut lines = BufReader::new(&self.file).lines();
        Ok(std::iter::from_fn(move || {
            let mut chunk = Vec::new();
            let mut bytes = 0;
            // A CID of the greatest length takes less than a kilobyte: the portion stays below the limit of a line.
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
