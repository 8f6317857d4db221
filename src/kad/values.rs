//! Values: what may be stored under `/pk/` and `/ipns/`, and which of two is the better (VAL-1 to VAL-3).

use std::{cmp::Ordering, time::Duration};

/// Longest value: the limit of an IPNS record (VAL-3).
pub const MAX_VALUE: usize = 10 * 1024;

/// Why a value is refused.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, thiserror::Error)]
pub enum Invalid {
    /// Neither `/pk/` nor `/ipns/` (VAL-1).
    #[error("values of this namespace are not stored")]
    UnknownNamespace,
}

/// Whether `value` may be stored and served under `key` at `now`, counted from the Unix epoch.
pub fn validate(key: &[u8], value: &[u8], now: Duration) -> Result<(), Invalid> {
    let _ = (key, value, now);
    Err(Invalid::UnknownNamespace)
}

/// Which of two values is the better for `key`, both of them valid (`Greater`: `a`).
pub fn compare(key: &[u8], a: &[u8], b: &[u8]) -> Ordering {
    let _ = (key, a, b);
    Ordering::Equal
}

/// When `value` ends by its own word, counted from the Unix epoch; `None` if it does not say.
pub fn ends(key: &[u8], value: &[u8]) -> Option<Duration> {
    let _ = (key, value);
    None
}
