//! What happened, counted by name, for `dhtstore stat`.

use std::{
    collections::BTreeMap,
    sync::atomic::{AtomicU64, Ordering},
};

macro_rules! counters {
    ($($(#[$doc:meta])* $variant:ident => $name:literal,)*) => {
        /// Something that is counted.
        #[derive(Clone, Copy, PartialEq, Eq, Debug)]
        #[repr(usize)]
        pub(crate) enum Counter { $($(#[$doc])* $variant,)* }

        impl Counter {
            const NAMES: &'static [&'static str] = &[$($name,)*];
        }
    };
}

counters! {
    /// FIND_NODEs answered.
    FindNode => "requests find-node",
    /// GET_PROVIDERS answered.
    GetProviders => "requests get-providers",
    /// ADD_PROVIDERs taken.
    AddProvider => "requests add-provider",
    /// PINGs answered.
    Ping => "requests ping",
    /// GET_VALUEs answered.
    GetValue => "requests get-value",
    /// PUT_VALUEs taken.
    PutValue => "requests put-value",
    /// Inbound streams served.
    StreamsServed => "streams served",
    /// Inbound streams dropped: `streams.max_per_connection` reached.
    StreamsOverConnectionLimit => "streams dropped, connection limit",
    /// Inbound streams dropped: the limit of the process reached.
    StreamsOverProcessLimit => "streams dropped, process limit",
    /// Streams reset because of a bad length prefix.
    BadFrame => "refused, length prefix",
    /// Streams reset because of a body that is no message.
    Malformed => "refused, malformed message",
    /// Streams reset because a message was begun and not finished in time.
    MessageTimeout => "refused, message not finished in time",
    /// Streams reset because `streams.read_budget` was used up.
    OverBudget => "refused, read budget used up",
    /// Streams reset because the peer did not read its answers.
    WriteStalled => "refused, answers not read",
    /// Streams that ended in the middle of a message or broke.
    StreamBroken => "streams broken",
    /// Streams that ended because nothing was asked for `streams.idle`.
    StreamIdle => "streams ended, idle",
    /// Requests refused: empty key.
    EmptyKey => "refused, empty key",
    /// Requests refused: key longer than 80 bytes.
    KeyTooLong => "refused, key too long",
    /// Requests refused: key is not a multihash.
    NotAMultihash => "refused, not a multihash",
    /// Requests refused: no provider entry of the sender.
    NotTheSender => "refused, provider is not the sender",
    /// Requests refused: values of this kind are not stored.
    UnknownNamespace => "refused, value not stored here",
    /// Requests refused: record missing or malformed.
    BadRecord => "refused, bad record",
    /// Values refused: not what their key asks for, badly signed, or ended.
    InvalidValue => "refused, invalid value",
    /// Values refused: a better one is held.
    WorseValue => "refused, better value held",
    /// Announcements and values that the store did not take.
    StoreRefused => "refused, store limit",
    /// Handshakes of others that gave way to newcomers: `connections.max_pending` or its share of a group reached.
    HandshakesGaveWay => "handshakes that gave way",
    /// Newcomers turned away for the same reason, where all others were too young to give way.
    HandshakesRefused => "handshakes refused",
    /// Inbound connections denied: `connections.max_per_ip` reached.
    ConnectionsPerIp => "connections denied, per IP",
    /// Inbound or outbound connections denied by the other limits.
    ConnectionsOverLimit => "connections denied, limit",
    /// Probes of candidates for a routing table that were answered.
    ProbesAnswered => "routing probes answered",
    /// Probes of candidates for a routing table that failed.
    ProbesFailed => "routing probes failed",
    /// Candidates dropped because too many probes were under way.
    ProbesDropped => "routing probes dropped",
    /// Peers removed from a routing table because they did not answer.
    PeersRemoved => "routing peers removed",
    /// AutoNAT: dials for others, to tell them whether they can be reached.
    DialBacks => "autonat dials for others",
    /// AutoNAT: dials for others that a limit or the address forbade.
    DialBacksRefused => "autonat dials for others refused",
    /// AutoNAT: peers that reached us when we asked them to.
    ReachedBack => "autonat reached by",
    /// AutoNAT: peers that did not.
    NotReachedBack => "autonat not reached by",
    /// From server to client and back.
    ModeChanges => "mode changes",
}

/// The counters of one node, since its start.
#[derive(Debug)]
pub(crate) struct Counters {
    values: Box<[AtomicU64]>,
}

impl Default for Counters {
    fn default() -> Self {
        Self { values: Counter::NAMES.iter().map(|_| AtomicU64::new(0)).collect() }
    }
}

impl Counters {
    /// One more.
    pub(crate) fn add(&self, counter: Counter) {
        // The discriminants index NAMES, which `values` is as long as.
        if let Some(value) = self.values.get(counter as usize) {
            value.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Those that are not zero, by name.
    pub(crate) fn snapshot(&self) -> BTreeMap<String, u64> {
        let values = self.values.iter().map(|value| value.load(Ordering::Relaxed));
        Counter::NAMES.iter().zip(values).filter(|(_, n)| *n > 0).map(|(name, n)| ((*name).to_owned(), n)).collect()
    }

    #[cfg(test)]
    pub(crate) fn get(&self, counter: Counter) -> u64 {
        self.values[counter as usize].load(Ordering::Relaxed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_happened_is_listed() {
        let counters = Counters::default();
        counters.add(Counter::FindNode);
        counters.add(Counter::PeersRemoved);
        counters.add(Counter::PeersRemoved);
        assert_eq!(counters.get(Counter::PeersRemoved), 2);
        let snapshot = counters.snapshot();
        assert_eq!(snapshot.get("requests find-node"), Some(&1));
        assert_eq!(snapshot.get("routing peers removed"), Some(&2));
        assert_eq!(snapshot.len(), 2);
    }
}
