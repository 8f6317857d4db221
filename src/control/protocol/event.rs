//! What happens on the way of a look-up.

use serde::{Deserialize, Serialize};

/// What happens during a query, for `-v` and for streaming results.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "event", rename_all = "kebab-case")]
pub enum Event {
    /// A request goes out.
    Asking {
        /// `wan` or `lan`.
        dht: String,
        /// Whom.
        peer: String,
    },
    /// An answer came.
    Answered {
        /// `wan` or `lan`.
        dht: String,
        /// Whose.
        peer: String,
        /// Closer peers it named.
        closer: usize,
        /// Providers it named.
        providers: usize,
        /// Dial included, in ms.
        took_ms: u64,
    },
    /// No answer, or none that can be used.
    Failed {
        /// `wan` or `lan`.
        dht: String,
        /// Whose.
        peer: String,
        /// Why.
        error: String,
    },
    /// A provider that was not known before.
    Provider {
        /// `wan` or `lan`; `local` for the own store.
        dht: String,
        /// The provider.
        provider: String,
        /// Where it can be dialled; may be empty.
        addresses: Vec<String>,
        /// The server that named it.
        from: String,
    },
    /// A server holds a value of the key.
    Value {
        /// `wan` or `lan`.
        dht: String,
        /// The server.
        peer: String,
        /// What it is and how it compares, or why it is refused.
        held: String,
    },
    /// A value was sent to a server.
    Put {
        /// `wan` or `lan`.
        dht: String,
        /// The server.
        peer: String,
        /// Why it did not confirm; `None` if it did.
        error: Option<String>,
    },
}
