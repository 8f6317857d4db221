//! An answer that is there at once, or later.

use futures::future::BoxFuture;
use std::fmt;

/// What a store answers. Memory answers at once, which costs no allocation; a disk that is behind, a thread or another machine
/// answers later.
pub enum Outcome<T> {
    /// The answer.
    Ready(T),
    /// The answer to come. Dropped, the question is withdrawn; what it asked to be stored may have been stored.
    Pending(BoxFuture<'static, T>),
}

/// The store cannot answer at present: it is elsewhere and out of reach, or overloaded. Another server can be asked.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, thiserror::Error)]
#[error("the store cannot be asked at present")]
pub struct NotNow;

impl<T> Outcome<T> {
    /// Waits for the answer.
    pub async fn wait(self) -> T {
        match self {
            Self::Ready(answer) => answer,
            Self::Pending(answer) => answer.await,
        }
    }

    /// The answer if it is there at once.
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
