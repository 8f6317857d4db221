//! What goes wrong in the store.

use std::path::PathBuf;

/// Why the store cannot do what it is asked.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The directory holds neither database.
    #[error("no dhtstore database in {0}")]
    NoDatabase(PathBuf),
    /// Another process has the directory.
    #[error("the data directory {0} is in use by another process")]
    Locked(PathBuf),
    /// A restore into the directory was cut off.
    #[error(
        "a restore into {0} was cut off: run `dhtstore restore` again with the same file; to do without it, move that directory away"
    )]
    Unfinished(PathBuf),
    /// Where something is to be restored there is something already.
    #[error(
        "{dir} is not empty (there is {found}), and a restore overwrites nothing: move it away first, or name another one with --data-dir"
    )]
    NotEmpty {
        /// The directory.
        dir: PathBuf,
        /// What is in it.
        found: String,
    },
    /// The file system refused.
    #[error("cannot {doing} {path}: {source}")]
    Io {
        /// A verb.
        doing: &'static str,
        /// With what.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// sled refused, or holds what cannot be read.
    #[error("database: {0}")]
    Database(String),
    /// It cannot be written since an error of the disk, and has no handle while it is opened anew.
    #[error("{0} cannot be written at present; see to the disk, it is opened anew by itself")]
    Degraded(PathBuf),
    /// The schema is of a later version.
    #[error(
        "the database was written by a newer dhtstore (schema {found}, this one knows {known}); install that version or a newer one"
    )]
    FromTheFuture {
        /// In the database.
        found: u32,
        /// Newest that this version knows.
        known: u32,
    },
    /// A bound of `Settings` is reached.
    #[error("limit of {limit} {what} reached")]
    Full {
        /// Of what there are as many as may be.
        what: &'static str,
        /// How many.
        limit: usize,
    },
    /// A filter of a dump is no CID or peer id.
    #[error("{what} {text:?} cannot be read: {reason}")]
    BadFilter {
        /// `CID` or `peer id`.
        what: &'static str,
        /// As given.
        text: String,
        /// Why not.
        reason: String,
    },
}
