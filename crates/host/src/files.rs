//! Small files that the operator names: configuration, identity, swarm key, certificates.

use rustix::{
    event::{PollFd, PollFlags, Timespec, poll},
    fs::{OFlags, fcntl_setfl},
};
use std::{
    fs::{File, OpenOptions},
    io::{self, Read},
    os::unix::fs::{FileTypeExt, OpenOptionsExt},
    path::Path,
};

/// Time to wait for a writer to a named pipe, in seconds.
const WRITER_SECONDS: i64 = 5;

/// Returns whether a path exists, even if it cannot be read. A link that leads nowhere exists, and so does a file in a
/// directory that this user may not enter. So an unreadable file is an error, and never counts as a missing one.
pub fn is_present(path: &Path) -> bool {
    use io::ErrorKind::{NotADirectory, NotFound};
    path.symlink_metadata().err().is_none_or(|error| !matches!(error.kind(), NotFound | NotADirectory))
}

/// Reads a whole file.
///
/// # Errors
/// The error of the system; [`io::ErrorKind::FileTooLarge`] above `max` bytes; [`io::ErrorKind::TimedOut`] for a named
/// pipe that gets no writer within five seconds.
pub fn read_bounded(path: &Path, max: u64) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    open(path)?.take(max + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > max {
        return Err(io::Error::new(io::ErrorKind::FileTooLarge, format!("it is larger than {max} bytes")));
    }
    Ok(bytes)
}

/// Opens a file. Unlike an ordinary open, this does not wait for the other end of a named pipe.
fn open(path: &Path) -> io::Result<File> {
    let file = OpenOptions::new().read(true).custom_flags(OFlags::NONBLOCK.bits().cast_signed()).open(path)?;
    if file.metadata()?.file_type().is_fifo() {
        let wait = Timespec { tv_sec: WRITER_SECONDS, tv_nsec: 0 };
        if poll(&mut [PollFd::new(&file, PollFlags::IN)], Some(&wait))? == 0 {
            return Err(io::Error::new(io::ErrorKind::TimedOut, "it is a named pipe, and no process writes to it"));
        }
    }
    fcntl_setfl(&file, OFlags::empty())?;
    Ok(file)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::{fs, os::unix::fs::symlink, thread};

    #[test]
    fn a_link_that_leads_nowhere_is_present_and_cannot_be_read() {
        let dir = tempfile::tempdir().unwrap();
        let link = dir.path().join("link");
        assert!(!is_present(&link) && !is_present(&dir.path().join("none/file")));
        symlink("nowhere", &link).unwrap();
        assert!(is_present(&link));
        assert_eq!(read_bounded(&link, 10).unwrap_err().kind(), io::ErrorKind::NotFound);
    }

    #[test]
    fn at_most_so_many_bytes_are_read() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("file");
        fs::write(&path, [7; 10]).unwrap();
        assert_eq!(read_bounded(&path, 10).unwrap(), [7; 10]);
        assert_eq!(read_bounded(&path, 9).unwrap_err().kind(), io::ErrorKind::FileTooLarge);
        assert_eq!(read_bounded(dir.path(), 9).unwrap_err().kind(), io::ErrorKind::IsADirectory);
        assert_eq!(read_bounded(Path::new("/dev/zero"), 9).unwrap_err().kind(), io::ErrorKind::FileTooLarge);
    }

    #[test]
    fn a_pipe_is_read_to_its_end_and_not_waited_for_without_end() {
        let dir = tempfile::tempdir().unwrap();
        let pipe = dir.path().join("pipe");
        rustix::fs::mknodat(rustix::fs::CWD, &pipe, rustix::fs::FileType::Fifo, rustix::fs::Mode::RWXU, 0).unwrap();
        let writes = {
            let pipe = pipe.clone();
            thread::spawn(move || fs::write(pipe, "text").unwrap())
        };
        assert_eq!(read_bounded(&pipe, 10).unwrap(), b"text");
        writes.join().unwrap();
        assert_eq!(read_bounded(&pipe, 10).unwrap_err().kind(), io::ErrorKind::TimedOut);
    }
}
