//! Values that others put: public keys and IPNS records (VAL-1 to VAL-6).

use crate::{NotNow, Outcome};
use dhtstore_host::clock::UnixTime;
use dhtstore_kad::values::Invalid;
use std::{fmt, sync::Arc};

/// A value that is held.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Value {
    /// A public key or an IPNS record.
    pub value: Arc<[u8]>,
    /// When it was last put.
    pub received: UnixTime,
}

/// What became of a value.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Put {
    /// None was held under its key.
    New,
    /// It took the place of a worse one.
    Better,
    /// The same was held; it lives on.
    Renewed,
}

/// Why a value was not taken.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, thiserror::Error)]
pub enum Refused {
    /// VAL-1 to VAL-3.
    #[error("invalid value: {0}")]
    Invalid(#[from] Invalid),
    /// A better one is held.
    #[error("a better value is held")]
    Worse,
    /// `values.max` or `values.max_bytes`, and all that is held is closer to this node.
    #[error("limit of values reached, and this one is farther from this node than all that are held")]
    Full,
    /// After an error of the disk, while it is nearly full, and when the store is closed.
    #[error("the database does not take writes")]
    ReadOnly,
    /// `store.max_disk`: what is held is renewed, and nothing new taken.
    #[error("the data directory takes as much of the disk as it may")]
    DiskFull,
    /// See [`NotNow`].
    #[error(transparent)]
    NotNow(#[from] NotNow),
}

/// A store of values. A value is served until its ttl has passed since it was last put (VAL-5), and never past its own end.
pub trait Values: fmt::Debug + Send + Sync {
    /// Returns the value of `key`, if one is held that is still valid.
    fn get(&self, key: &[u8]) -> Outcome<Result<Option<Value>, NotNow>>;

    /// Validates a value and takes it if no better one is held (VAL-4); the same again renews its time.
    fn put(&self, key: &[u8], value: &[u8]) -> Outcome<Result<Put, Refused>>;
}
