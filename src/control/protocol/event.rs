//! Events of a look-up.

use serde::{Deserialize, Serialize};

/// An event of a query, for `-v` and for streaming results.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "event", rename_all = "kebab-case")]
pub enum Event {
    /// A request goes out.
    Asking {
        /// `wan` or `lan`.
        dht: String,
        /// Server that is asked.
        peer: String,
    },
    /// An answer came.
    Answered {
        /// `wan` or `lan`.
        dht: String,
        /// Server that answered.
        peer: String,
        /// Number of closer peers that it named.
        closer: usize,
        /// Number of providers that it named.
        providers: usize,
        /// Time from the request to the answer, including the dial, in ms.
        took_ms: u64,
    },
    /// A server gave no usable answer.
    Failed {
        /// `wan` or `lan`.
        dht: String,
        /// The server.
        peer: String,
        /// Why.
        error: String,
    },
    /// A provider that was not known before.
    Provider {
        /// `wan` or `lan`; `local` for this node's store.
        dht: String,
        /// The provider.
        provider: String,
        /// Addresses of the provider; may be empty.
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
        /// The value and how it compares with the best, or why it is refused.
        held: String,
    },
    /// A value was sent to a server.
    Put {
        /// `wan` or `lan`.
        dht: String,
        /// The server.
        peer: String,
        /// Why the server did not confirm it; `None` if it did.
        error: Option<String>,
    },
}
