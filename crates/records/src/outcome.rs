//! An answer that is ready at once, or pending.

use futures::future::BoxFuture;
use std::fmt;

/// The answer of a store. A store in memory answers at once, without an allocation. One that waits for a disk, a thread
/// or another machine answers later.
pub enum Outcome<T> {
    /// The answer.
    Ready(T),
    /// The future of the answer. Dropping it withdraws the question. A call that stores a record may have stored it
    /// nevertheless.
    Pending(BoxFuture<'static, T>),
}

/// The store cannot answer at present: it is out of reach, or overloaded. Another server can be asked.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, thiserror::Error)]
#[error("the store cannot be reached at present")]
pub struct NotNow;

impl<T> Outcome<T> {
    /// Waits for the answer.
    pub async fn wait(self) -> T {
        match self {
            Self::Ready(answer) => answer,
            Self::Pending(answer) => answer.await,
        }
    }

    /// Returns the answer if it is ready.
    pub fn now(self) -> Option<T> {
        match self {
            Self::Ready(answer) => Some(answer),
            Self::Pending(_) => None,
        }
    }
}

impl<T> fmt::Debug for Outcome<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Ready(_) => "Ready",
            Self::Pending(_) => "Pending",
        })
    }
}
