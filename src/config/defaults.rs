//! The default of every setting. config/dhtstore.toml gives the reason for each value; a test keeps both equal.

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

/// Every interface, TCP and QUIC v1, on the port of IPFS nodes.
pub const LISTEN: [&str; 4] =
    ["/ip4/0.0.0.0/tcp/4001", "/ip6/::/tcp/4001", "/ip4/0.0.0.0/udp/4001/quic-v1", "/ip6/::/udp/4001/quic-v1"];

/// The public bootstrappers: those that Kubo falls back to (boxo `autoconf`).
pub const AMINO_BOOTSTRAP: [&str; 6] = [
    "/dnsaddr/bootstrap.libp2p.io/p2p/QmNnooDu7bfjPFoTZYxMNLWUQJyrVwtbZg5gBMjTezGAJN",
    "/dnsaddr/bootstrap.libp2p.io/p2p/QmQCU2EcMqAqQPR2i9bChDtGNJchTbq5TbXJJ16u19uLTa",
    "/dnsaddr/bootstrap.libp2p.io/p2p/QmbLHAnMoJPWSCR5Zhtx6BHJX9KiKNN6tpvbUcqanj75Nb",
    "/dnsaddr/bootstrap.libp2p.io/p2p/QmcZf59bWwK5XFi76CZX8cbJ4BhTzzA3gU1ZjYZcYW3dwt",
    "/dnsaddr/va1.bootstrap.libp2p.io/p2p/12D3KooWKnDdG3iXw9eTFijk3EWSunZcFi54Zka4wmtqtt6rPxc8",
    "/ip4/104.131.131.82/tcp/4001/p2p/QmaCpDMGvV2BGHeYERUEnRQAwe3N8SzbUtfsmvsqQLuvuJ",
];

/// `records.ttl` of the profile `amino` (PRV-5). A shorter ttl with public bootstrappers causes a warning.
pub const AMINO_TTL: Duration = hours(48);

/// How often most jobs look whether they are due.
const EVERY_TEN_SECONDS: &str = "*/10 * * * * *";

/// Data directory of root and of the systemd service.
pub const SYSTEM_DATA_DIR: &str = "/var/lib/dhtstore";
/// Configuration file of root and of the systemd service.
pub const SYSTEM_CONFIG: &str = "/etc/dhtstore/dhtstore.toml";

impl Config {
    /// Returns the defaults of a profile.
    pub fn defaults(profile: Profile) -> Self {
        let (ttl, interval, bootstrap, max_per_ip) = match profile {
            Profile::Private => (hours(12), hours(10), Vec::new(), 1_024),
            Profile::Amino => (AMINO_TTL, hours(22), parse(&AMINO_BOOTSTRAP), 64),
        };
        let job = |interval| Job { cron: EVERY_TEN_SECONDS.into(), interval };
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
            store: Store { reserve: 64 << 20, max_disk: 0 },
            records: Records {
                ttl,
                address_ttl: hours(24),
                clock_grace: minutes(10),
                max: 20_000_000,
                max_per_provider: 10_000_000,
                max_providers_per_key: 10_000,
                max_peers: 1_000_000,
            },
            values: Values { ttl: hours(48), max: 100_000, max_bytes: 64 << 20 },
            reprovide: Reprovide { interval, max_cids: 10_000_000 },
            provide: Provide { addresses: Vec::new() },
            routing: Routing { asn_database: None, saved_peers: true },
            connections: Connections {
                max: 4_096,
                max_pending: 512,
                max_pending_per_group: 128,
                max_per_peer: 8,
                max_per_ip,
                idle: minutes(1),
            },
            streams: Streams {
                max_per_connection: 512,
                idle: minutes(1),
                message_timeout: Duration::from_secs(10),
                read_budget: 64 << 20,
            },
            autonat: Autonat { enabled: true, max_dials: 60, max_dials_per_peer: 12 },
            relay: Relay {
                enabled: false,
                max_reservations: 128,
                max_circuits: 16,
                reservation_ttl: hours(1),
                connection_duration_limit: minutes(2),
                connection_data_limit: 128 << 10,
            },
            websocket: Websocket::default(),
            control: Control { socket: None },
            jobs: Jobs {
                gc: job(minutes(1)),
                reprovide: ReprovideJob { cron: "0 * * * * *".into() },
                routing_refresh: job(minutes(10)),
                routing_snapshot: job(minutes(5)),
                flush_state: job(minutes(1)),
            },
        }
    }
}

/// Returns the default data directory: `$STATE_DIRECTORY` under systemd, `/var/lib/dhtstore` for root, else the state
/// directory of the user (`~/.local/state/dhtstore`). `None` for a user without a home directory: with a relative path
/// each working directory would get an identity of its own.
pub fn data_dir() -> Option<PathBuf> {
    if let Some(dirs) = std::env::var_os("STATE_DIRECTORY").filter(|d| !d.is_empty()) {
        // systemd joins several directories with colons. The first one is for this program.
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

/// Returns the configuration file of this user: `/etc/dhtstore/dhtstore.toml` for root and the systemd service, else
/// `~/.config/dhtstore/dhtstore.toml`.
pub fn config_file() -> Option<PathBuf> {
    if is_root() || std::env::var_os("STATE_DIRECTORY").is_some() {
        return Some(SYSTEM_CONFIG.into());
    }
    Some(dirs::config_dir()?.join("dhtstore").join("dhtstore.toml"))
}

/// Returns whether this process runs as root. The owner of `/proc/self` shows it without unsafe code. If there is no
/// `/proc`, the home directory decides.
fn is_root() -> bool {
    use std::os::unix::fs::MetadataExt;
    match std::fs::metadata("/proc/self") {
        Ok(process) => process.uid() == 0,
        Err(_) => dirs::home_dir().is_some_and(|home| home == Path::new("/var/root") || home == Path::new("/root")),
    }
}

fn parse(addresses: &[&str]) -> Vec<Multiaddr> {
    // They are constants of this file, and a test proves that none is dropped.
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
