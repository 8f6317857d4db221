//! Names of the files and directories in a data directory.

/// Directory of the database of provider records and values, which other peers announced.
pub const RECORDS: &str = "records";
/// Directory of the segments of the log, which hold the bodies of its chunks. Their rows are in [`RECORDS`].
pub const LOG: &str = "log";
/// Directory of the database of own CIDs, routing tables and other state of this node.
pub const NODE: &str = "node";
/// Directory of the exports and journals of own CIDs and routing tables.
pub const EXPORTS: &str = "exports";
/// Directory of the files that a start on a full disk removes: below the data directory, and below each part of it that
/// is a file system of its own.
pub const BALLAST: &str = "ballast";
/// The file that is locked. It stays when the process ends; the kernel releases the lock however the process ends.
pub const LOCK: &str = "lock";
/// Directory, inside the data directory, in which `dhtstore restore` builds a new one.
pub const RESTORE: &str = ".dhtstore-restore";
