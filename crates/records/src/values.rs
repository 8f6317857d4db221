//! Values that other peers put: public keys and IPNS records (VAL-1 to VAL-6).

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

/// Result of a value that was accepted.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Put {
    /// No value was held under its key.
    New,
    /// It replaced a worse value.
    Better,
    /// The same value was held, and its life is prolonged.
    Renewed,
}

/// Why a value was refused.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, thiserror::Error)]
pub enum Refused {
    /// The value breaks a rule of VAL-1 to VAL-3.
    #[error("invalid value: {0}")]
    Invalid(#[from] Invalid),
    /// A better value is held.
    #[error("a better value is held")]
    Worse,
    /// The limit `values.max` or `values.max_bytes` is reached, and all values held are closer to this node.
    #[error("limit of values reached, and all values held are closer to this node")]
    Full,
    /// The disk failed or is nearly full, or the store is closed.
    #[error("the database does not take writes")]
    ReadOnly,
    /// The limit `store.max_disk` is reached: values are renewed, and new ones refused.
    #[error("the data directory has reached its size limit")]
    DiskFull,
    /// The store did not answer: see [`NotNow`].
    #[error(transparent)]
    NotNow(#[from] NotNow),
}

/// A store of values. A value is served until its ttl has passed since it was last put (VAL-5), and never past its own
/// end.
pub trait Values: fmt::Debug + Send + Sync {
    /// Returns the value of `key` if one is held and valid.
    fn get(&self, key: &[u8]) -> Outcome<Result<Option<Value>, NotNow>>;

    /// Validates a value and stores it if no better one is held (VAL-4); the same value again renews its time.
    fn put(&self, key: &[u8], value: &[u8]) -> Outcome<Result<Put, Refused>>;
}
