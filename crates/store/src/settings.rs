//! Limits and times of the store, with their defaults.

use std::time::Duration;

/// Limits and times of the store. Each default is a documented constant.
#[derive(Clone, Debug)]
pub struct Settings {
    /// How long a record lives after its last announcement (PRV-5). Counted in whole seconds, at least one.
    pub ttl: Duration,
    /// How long a provider's addresses are served after its newest announcement (PRV-6).
    pub address_ttl: Duration,
    /// How long a step of the wall clock must last before garbage collection trusts the new time.
    pub clock_grace: Duration,
    /// Position of this node in the keyspace. At [`Settings::max_records`] and [`Settings::max_values`] the store drops
    /// what is farthest from it.
    pub position: [u8; 32],
    /// Maximum number of records in the index: at 40 bytes each the default is 4 GB.
    pub max_records: usize,
    /// Maximum number of records of one provider.
    pub max_records_per_provider: usize,
    /// Maximum number of providers of one key.
    pub max_providers_per_key: usize,
    /// Maximum number of peers in the address book: at some 500 bytes each the default is 1 GB.
    pub max_peers: usize,
    /// Maximum number of own CIDs: at some 150 bytes each the default is 1.5 GB.
    pub max_provided: usize,
    /// How long a value is served after its last PUT_VALUE (VAL-5). Counted in whole seconds, at least one.
    pub values_ttl: Duration,
    /// Maximum number of values.
    pub max_values: usize,
    /// Maximum size of their keys and values in bytes; in memory each value takes some 400 bytes more.
    pub max_values_bytes: usize,
    /// Bytes to keep free on the disk. While fewer are free, announcements are refused. 0: no reserve.
    pub reserve: u64,
    /// Maximum size of the whole data directory on disk, in bytes. At the limit new records and values are refused, and
    /// refreshes accepted. 0: no limit.
    pub max_disk: u64,
}

/// Default of [`Settings::reserve`]. Below it own CIDs, their export (some 40 MB for a million) and garbage collection
/// go on.
const RESERVE: u64 = 64 << 20;

impl Default for Settings {
    fn default() -> Self {
        Self {
            ttl: Duration::from_secs(12 * 3600),
            address_ttl: Duration::from_secs(24 * 3600),
            clock_grace: Duration::from_secs(600),
            position: [0; 32],
            max_records: 100_000_000,
            max_records_per_provider: 25_000_000,
            max_providers_per_key: 10_000,
            max_peers: 2_000_000,
            max_provided: 10_000_000,
            values_ttl: Duration::from_secs(48 * 3600),
            max_values: 100_000,
            max_values_bytes: 64 << 20,
            reserve: RESERVE,
            max_disk: 0,
        }
    }
}
