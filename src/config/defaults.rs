//! The default of every setting, with the reason for its value.

use super::{
    Autonat, Config, Connections, Control, Job, Jobs, Mode, Profile, Provide, Records, Relay, Reprovide, ReprovideJob,
    Routing, Store, Streams, Values, Websocket,
};
use libp2p::Multiaddr;
use std::{
    path::{Path, PathBuf},
    time::Duration,
};

const fn minutes(n: u64) -> Duration {
    Duration::from_secs(60 * n)
}

const fn hours(n: u64) -> Duration {
    minutes(60 * n)
}

/// Every interface, TCP and QUIC v1, on the port that IPFS nodes use.
pub const LISTEN: [&str; 4] =
    ["/ip4/0.0.0.0/tcp/4001", "/ip6/::/tcp/4001", "/ip4/0.0.0.0/udp/4001/quic-v1", "/ip6/::/udp/4001/quic-v1"];

/// The public bootstrappers, as Kubo falls back to (boxo `autoconf`).
pub const AMINO_BOOTSTRAP: [&str; 6] = [
    "/dnsaddr/bootstrap.libp2p.io/p2p/QmNnooDu7bfjPFoTZYxMNLWUQJyrVwtbZg5gBMjTezGAJN",
    "/dnsaddr/bootstrap.libp2p.io/p2p/QmQCU2EcMqAqQPR2i9bChDtGNJchTbq5TbXJJ16u19uLTa",
    "/dnsaddr/bootstrap.libp2p.io/p2p/QmbLHAnMoJPWSCR5Zhtx6BHJX9KiKNN6tpvbUcqanj75Nb",
    "/dnsaddr/bootstrap.libp2p.io/p2p/QmcZf59bWwK5XFi76CZX8cbJ4BhTzzA3gU1ZjYZcYW3dwt",
    "/dnsaddr/va1.bootstrap.libp2p.io/p2p/12D3KooWKnDdG3iXw9eTFijk3EWSunZcFi54Zka4wmtqtt6rPxc8",
    "/ip4/104.131.131.82/tcp/4001/p2p/QmaCpDMGvV2BGHeYERUEnRQAwe3N8SzbUtfsmvsqQLuvuJ",
];

/// `store.reserve`: own CIDs, their export (some 40 MB for a million) and garbage collection go on below it.
pub const RESERVE: usize = 64 << 20;
/// `records.ttl` of the `private` profile: what the project was asked for.
pub const PRIVATE_TTL: Duration = hours(12);
/// `reprovide.interval` of the `private` profile: below the ttl by two hours, time enough for a slow round.
pub const PRIVATE_INTERVAL: Duration = hours(10);
/// `records.ttl` of the `amino` profile (PRV-5): after 48 h most of the holders are still among the 20 closest.
pub const AMINO_TTL: Duration = hours(48);
/// `reprovide.interval` of the `amino` profile (PRV-9): two rounds fit into the ttl, so that one may fail.
pub const AMINO_INTERVAL: Duration = hours(22);

/// `records.address_ttl` (PRV-6).
pub const ADDRESS_TTL: Duration = hours(24);
/// `records.clock_grace`: NTP corrects a wrong clock within minutes of boot.
pub const CLOCK_GRACE: Duration = minutes(10);
/// `records.max`: some 45 bytes of memory each (measured), so about 900 MB when full.
pub const MAX_RECORDS: usize = 20_000_000;
/// `records.max_per_provider`: the largest pinning services announce tens of millions of CIDs, of which one server of
/// the public network gets a few hundredths; half of all records is more than an honest provider needs.
pub const MAX_PER_PROVIDER: usize = 10_000_000;
/// `records.max_providers_per_key`: a key may be popular, but an answer carries some 20 providers; beyond this
/// more providers serve nobody and only help who wants to fill the index.
pub const MAX_PROVIDERS_PER_KEY: usize = 10_000;
/// `records.max_peers`: several times the peers of the public network; at most 512 bytes of addresses each.
pub const MAX_PEERS: usize = 1_000_000;
/// `reprovide.max_cids`: ten times what a round is designed for (a million).
pub const MAX_CIDS: usize = 10_000_000;

/// `values.ttl` (VAL-5): what the public network does; publishers put again every few hours.
pub const VALUES_TTL: Duration = hours(48);
/// `values.max`: a server of the public network is among the 20 closest of some thousands of names. Each takes some 400
/// bytes of memory beside its own, so 40 MB when full.
pub const MAX_VALUES: usize = 100_000;
/// `values.max_bytes`: room for as many of the usual size (400 bytes), or 6,500 of the greatest (10 KiB).
pub const MAX_VALUES_BYTES: usize = 64 << 20;

/// `connections.max`: a bootstrap peer's clients come and go within seconds, so few are open at once; some 100 KiB of
/// memory and one descriptor each, about 400 MiB when full.
pub const MAX_CONNECTIONS: u32 = 4_096;
/// `connections.max_pending`: a handshake costs under 1 ms of CPU, so a flood costs at most half a second at a time.
pub const MAX_PENDING: u32 = 512;
/// `connections.max_per_peer`: one per transport and address family, twice, as happens when both sides dial.
pub const MAX_PER_PEER: u32 = 8;
/// `connections.max_pending_per_group`: a quarter of all, so that three groups that say nothing leave room for others. A site
/// of nodes behind one address may still start at once: a handshake takes milliseconds.
pub const MAX_PENDING_PER_GROUP: u32 = 128;
/// `connections.max_per_ip` of the `amino` profile: one address holds at most 1/64 of all connections, yet a
/// household or office behind one address is served.
pub const AMINO_MAX_PER_IP: u32 = 64;
/// `connections.max_per_ip` of the `private` profile: there a whole site of nodes may stand behind one address.
pub const PRIVATE_MAX_PER_IP: u32 = 1_024;
/// `connections.idle`: a look-up asks the same server again within seconds; a new handshake costs two round trips.
pub const CONNECTION_IDLE: Duration = minutes(1);

/// `streams.max_per_connection`: js and rust clients open a stream for each request; rust-libp2p's own 32 loses records.
pub const MAX_STREAMS: usize = 512;
/// `streams.idle`: go clients keep a stream for the next request.
pub const STREAM_IDLE: Duration = minutes(1);
/// `streams.message_timeout`: 64 KiB in 10 s is 52 kbit/s; who is slower is broken or means harm.
pub const MESSAGE_TIMEOUT: Duration = Duration::from_secs(10);
/// `streams.read_budget`: a thousand requests of the greatest size (64 KiB) half read at the same time.
pub const READ_BUDGET: usize = 64 << 20;

/// `autonat.max_dials`, as go's v2 has it: one dial a second.
pub const AUTONAT_DIALS: usize = 60;
/// `autonat.max_dials_per_peer`, as go's v2 has it: two transports, two IP families, three times.
pub const AUTONAT_DIALS_PER_PEER: usize = 12;

/// `relay.max_reservations`, as go has it.
pub const RELAY_RESERVATIONS: usize = 128;
/// `relay.max_circuits`: go's 16 are for each peer, these are in all; with the limits below 16 carry at most 2 MiB in
/// their time.
pub const RELAY_CIRCUITS: usize = 16;
/// `relay.reservation_ttl`, as go has it.
pub const RELAY_RESERVATION_TTL: Duration = hours(1);
/// `relay.connection_duration_limit`, as go has it: long enough for a hole punch.
pub const RELAY_DURATION: Duration = minutes(2);
/// `relay.connection_data_limit`: go's number, which there is for each direction and here for both together.
pub const RELAY_DATA: usize = 128 << 10;

/// How often most jobs look: a job is late by at most this much.
pub const LOOK_OFTEN: &str = "*/10 * * * * *";
/// How often the reprovide job looks: announcing is spread over hours, so a minute is soon enough.
pub const LOOK_EVERY_MINUTE: &str = "0 * * * * *";
/// `jobs.gc.interval`: reads filter by ttl, so this only bounds the memory that expired records hold: a minute's worth.
pub const GC_INTERVAL: Duration = minutes(1);
/// `jobs.routing-refresh.interval` (RT-7).
pub const REFRESH_INTERVAL: Duration = minutes(10);
/// `jobs.routing-snapshot.interval`: the table changes slowly; a kill loses at most five minutes of it.
pub const SNAPSHOT_INTERVAL: Duration = minutes(5);
/// `jobs.flush-state.interval`: a kill repeats at most a minute of announcements, which is harmless.
pub const FLUSH_INTERVAL: Duration = minutes(1);

/// The service's data directory, and root's.
pub const SYSTEM_DATA_DIR: &str = "/var/lib/dhtstore";
/// The configuration file of the service, and root's.
pub const SYSTEM_CONFIG: &str = "/etc/dhtstore/dhtstore.toml";

impl Config {
    /// The defaults of a profile.
    pub fn defaults(profile: Profile) -> Self {
        let (ttl, interval, bootstrap, max_per_ip) = match profile {
            Profile::Private => (PRIVATE_TTL, PRIVATE_INTERVAL, Vec::new(), PRIVATE_MAX_PER_IP),
            Profile::Amino => (AMINO_TTL, AMINO_INTERVAL, parse(&AMINO_BOOTSTRAP), AMINO_MAX_PER_IP),
        };
        let job = |interval| Job { cron: LOOK_OFTEN.into(), interval };
        Self {
            profile,
            data_dir: data_dir().unwrap_or_default(),
            listen: parse(&LISTEN),
            announce: Vec::new(),
            append_announce: Vec::new(),
            no_announce: Vec::new(),
            swarm_key: None,
            bootstrap,
            mode: Mode::Auto,
            store: Store { reserve: RESERVE, max_disk: 0 },
            records: Records {
                ttl,
                address_ttl: ADDRESS_TTL,
                clock_grace: CLOCK_GRACE,
                max: MAX_RECORDS,
                max_per_provider: MAX_PER_PROVIDER,
                max_providers_per_key: MAX_PROVIDERS_PER_KEY,
                max_peers: MAX_PEERS,
            },
            values: Values { ttl: VALUES_TTL, max: MAX_VALUES, max_bytes: MAX_VALUES_BYTES },
            reprovide: Reprovide { interval, max_cids: MAX_CIDS },
            provide: Provide { addresses: Vec::new() },
            routing: Routing { asn_database: None, saved_peers: true },
            connections: Connections {
                max: MAX_CONNECTIONS,
                max_pending: MAX_PENDING,
                max_pending_per_group: MAX_PENDING_PER_GROUP,
                max_per_peer: MAX_PER_PEER,
                max_per_ip,
                idle: CONNECTION_IDLE,
            },
            streams: Streams {
                max_per_connection: MAX_STREAMS,
                idle: STREAM_IDLE,
                message_timeout: MESSAGE_TIMEOUT,
                read_budget: READ_BUDGET,
            },
            autonat: Autonat { enabled: true, max_dials: AUTONAT_DIALS, max_dials_per_peer: AUTONAT_DIALS_PER_PEER },
            relay: Relay {
                enabled: false,
                max_reservations: RELAY_RESERVATIONS,
                max_circuits: RELAY_CIRCUITS,
                reservation_ttl: RELAY_RESERVATION_TTL,
                connection_duration_limit: RELAY_DURATION,
                connection_data_limit: RELAY_DATA,
            },
            websocket: Websocket::default(),
            control: Control { socket: None },
            jobs: Jobs {
                gc: job(GC_INTERVAL),
                reprovide: ReprovideJob { cron: LOOK_EVERY_MINUTE.into() },
                routing_refresh: job(REFRESH_INTERVAL),
                routing_snapshot: job(SNAPSHOT_INTERVAL),
                flush_state: job(FLUSH_INTERVAL),
            },
        }
    }
}

/// The platform's: `$STATE_DIRECTORY` under systemd, `/var/lib/dhtstore` for root, else the state directory of the user
/// (`~/.local/state/dhtstore`). `None` for a user without a home: each working directory would get an identity of its own.
pub fn data_dir() -> Option<PathBuf> {
    if let Some(dirs) = std::env::var_os("STATE_DIRECTORY").filter(|d| !d.is_empty()) {
        // systemd joins several with colons; ours comes first.
        let first = std::env::split_paths(&dirs).next();
        if let Some(dir) = first.filter(|d| d.is_absolute()) {
            return Some(dir);
        }
    }
    if is_root() {
        return Some(SYSTEM_DATA_DIR.into());
    }
    let dir = dirs::state_dir().or_else(dirs::data_local_dir).filter(|dir| dir.is_absolute())?;
    Some(dir.join("dhtstore"))
}

/// The configuration file of this user: `/etc/dhtstore/dhtstore.toml` for root and the service, else
/// `~/.config/dhtstore/dhtstore.toml`.
pub fn config_file() -> Option<PathBuf> {
    if is_root() || std::env::var_os("STATE_DIRECTORY").is_some() {
        return Some(SYSTEM_CONFIG.into());
    }
    Some(dirs::config_dir()?.join("dhtstore").join("dhtstore.toml"))
}

/// Whether this process runs as root. Reading the owner of `/proc/self` needs no unsafe code; where there is no `/proc`
/// the home directory tells.
fn is_root() -> bool {
    use std::os::unix::fs::MetadataExt;
    match std::fs::metadata("/proc/self") {
        Ok(process) => process.uid() == 0,
        Err(_) => dirs::home_dir().is_some_and(|home| home == Path::new("/var/root") || home == Path::new("/root")),
    }
}

fn parse(addresses: &[&str]) -> Vec<Multiaddr> {
    // Constants of this file; a test proves that none is dropped.
    addresses.iter().filter_map(|a| a.parse().ok()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_default_address_is_one() {
        let amino = Config::defaults(Profile::Amino);
        assert_eq!((amino.listen.len(), amino.bootstrap.len()), (LISTEN.len(), AMINO_BOOTSTRAP.len()));
    }

    #[test]
    fn prv_5_amino_serves_48_h_and_private_12_h() {
        assert_eq!(Config::defaults(Profile::Amino).records.ttl, Duration::from_secs(48 * 3600));
        assert_eq!(Config::defaults(Profile::Private).records.ttl, Duration::from_secs(12 * 3600));
    }

    #[test]
    fn prv_9_amino_announces_every_22_h_and_private_every_10_h() {
        assert_eq!(Config::defaults(Profile::Amino).reprovide.interval, Duration::from_secs(22 * 3600));
        assert_eq!(Config::defaults(Profile::Private).reprovide.interval, Duration::from_secs(10 * 3600));
    }

    #[test]
    fn rt_7_the_table_is_refreshed_every_10_minutes() {
        for profile in [Profile::Private, Profile::Amino] {
            assert_eq!(Config::defaults(profile).jobs.routing_refresh.interval, Duration::from_secs(600));
        }
    }

    #[test]
    fn the_defaults_of_every_profile_are_valid_without_warnings() {
        for profile in [Profile::Private, Profile::Amino] {
            let mut config = Config::defaults(profile);
            config.data_dir = "/var/lib/dhtstore".into();
            assert_eq!(config.validate().unwrap(), vec![], "{profile:?}");
        }
    }
}
