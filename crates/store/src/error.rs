//! Errors of the store.

use std::{error::Error, path::PathBuf};

/// The cause of an error: one of sled, of the codec or of the system, or a sentence.
pub type Cause = Box<dyn Error + Send + Sync>;

/// Why the store cannot do what it is asked. Its text ends with the text of its source.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The directory holds neither database.
    #[error("no dhtstore database in {0}")]
    NoDatabase(PathBuf),
    /// Another process holds the lock of the directory.
    #[error("the data directory {0} is in use by another process")]
    Locked(PathBuf),
    /// An earlier restore into the directory did not finish.
    #[error(
        "the restore into {0} did not finish; run `dhtstore restore` again with the same file, or move that directory \
        away"
    )]
    Unfinished(PathBuf),
    /// The directory of a restore holds something already.
    #[error(
        "cannot restore into {dir}: it is not empty (it holds {found}); move it away, or name another directory with \
        --data-dir"
    )]
    NotEmpty {
        /// The directory.
        dir: PathBuf,
        /// The name of a file in it.
        found: String,
    },
    /// A call to the file system failed.
    #[error("cannot {doing} {path}: {source}")]
    Io {
        /// The verb for the call: `open`, `create` …
        doing: &'static str,
        /// The file or directory of the call.
        path: PathBuf,
        /// The error of the system.
        source: std::io::Error,
    },
    /// sled failed, or a row cannot be read or written.
    #[error("database: {0}")]
    Database(#[source] Cause),
    /// The database has no handle: it is being reopened after a disk error.
    #[error("{0} is read-only after a disk error; fix the disk, dhtstore reopens it by itself")]
    Degraded(PathBuf),
    /// A later version of dhtstore wrote the database.
    #[error(
        "the database was written by a newer dhtstore (schema {found}, this one knows {known}); install that version \
        or a newer one"
    )]
    FromTheFuture {
        /// Schema version of the database.
        found: u32,
        /// Newest schema version that this build knows.
        known: u32,
    },
    /// A limit of [`Settings`](crate::Settings) is reached.
    #[error("limit of {limit} {what} reached")]
    Full {
        /// The things that are limited, in the plural.
        what: &'static str,
        /// The limit.
        limit: usize,
    },
    /// A filter of a dump is no CID or peer id.
    #[error("cannot read {what} {text:?}: {reason}")]
    BadFilter {
        /// `CID` or `peer id`.
        what: &'static str,
        /// The text as it was given.
        text: String,
        /// Why it cannot be read.
        #[source]
        reason: Cause,
    },
}

impl StoreError {
    /// Returns [`StoreError::Database`] with the text `doing: source`, which keeps its source.
    pub(crate) fn database(doing: impl Into<String>, source: impl Into<Cause>) -> Self {
        Self::Database(During { doing: doing.into(), source: source.into() }.into())
    }
}

/// An error whose text says what failed, then gives the cause.
#[derive(Debug, thiserror::Error)]
#[error("{doing}: {source}")]
struct During {
    doing: String,
    source: Cause,
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io;

    #[test]
    fn a_database_error_keeps_its_source_and_shows_it_once() {
        let error = StoreError::database("cannot start a thread", io::Error::other("no memory"));
        assert_eq!(error.to_string(), "database: cannot start a thread: no memory");
        let source = error.source().and_then(Error::source).unwrap();
        assert!(source.downcast_ref::<io::Error>().is_some());
        let error = StoreError::Database(sled::Error::ReportableBug("page 7".into()).into());
        assert!(error.source().unwrap().downcast_ref::<sled::Error>().is_some());
    }
}
