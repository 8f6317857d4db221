//! Names of what lies in a data directory.

/// Directory of the database of provider records and values: what others announced.
pub const RECORDS: &str = "records";
/// Directory of the bodies of the log, whose rows are in [`RECORDS`].
pub const LOG: &str = "log";
/// Directory of the database of what is ours.
pub const NODE: &str = "node";
/// Directory of the exports and journals of own CIDs and routing tables.
pub const EXPORTS: &str = "exports";
/// Directory of the files that a start on a full disk gives up: below the data directory and below each of its parts that
/// is a file system of its own.
pub const BALLAST: &str = "ballast";
/// The file that is locked. It stays when the process ends; the kernel drops the lock, whatever ended it.
pub const LOCK: &str = "lock";
/// Directory in which `dhtstore restore` builds a data directory, inside of it.
pub const RESTORE: &str = ".dhtstore-restore";
