//! What the types cannot say: bounds, and settings that belong together.

mod websocket;

use super::{Config, ConfigError, Job, Profile, defaults, text::show_duration};
use crate::{
    clock::{Clock, SystemClock},
    kad::{
        Dht,
        scope::{AddressScope, reach, strip_peer},
    },
    node::no_announce,
    transport::addresses::{UNSPOKEN, can_dial, can_listen, is_quic},
};
use libp2p::{Multiaddr, PeerId, multiaddr::Protocol};
use std::{fmt, ops::RangeInclusive, time::Duration};

/// The longest path that a Unix socket can have (`sun_path` holds 108 bytes with its final zero).
const MAX_SOCKET_PATH_BYTES: usize = 107;
/// Kubo's default `Provide.DHT.Interval`: how often the public network's publishers return.
const PUBLIC_REPUBLISH: Duration = Duration::from_secs(22 * 3600);
/// Conformance: at least so many streams per connection are served.
const MIN_STREAMS: usize = 256;
const SECOND: Duration = Duration::from_secs(1);
const DAY: Duration = Duration::from_secs(86_400);
/// No publisher stays away longer, and times of records are 32-bit seconds.
const MAX_TTL: Duration = Duration::from_secs(30 * 86_400);

/// A setting that is allowed but probably not meant.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Warning {
    /// The setting.
    pub key: &'static str,
    /// What it leads to, and what to do.
    pub message: String,
}

impl fmt::Display for Warning {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.key, self.message)
    }
}

/// Collects everything that is wrong, so that it can be mended in one go.
#[derive(Default)]
struct Findings {
    problems: Vec<String>,
    warnings: Vec<Warning>,
}

impl Findings {
    fn problem(&mut self, key: &str, message: impl fmt::Display) {
        self.problems.push(format!("{key}: {message}"));
    }

    fn warn(&mut self, key: &'static str, message: impl Into<String>) {
        self.warnings.push(Warning { key, message: message.into() });
    }

    fn bounded<T: PartialOrd + fmt::Display>(&mut self, key: &str, value: T, bounds: RangeInclusive<T>) {
        if !bounds.contains(&value) {
            self.problem(
                key,
                format_args!("{value} is out of bounds; choose from {} to {}", bounds.start(), bounds.end()),
            );
        }
    }

    fn duration(&mut self, key: &str, value: Duration, bounds: RangeInclusive<Duration>) {
        if !bounds.contains(&value) {
            let [value, least, most] = [value, *bounds.start(), *bounds.end()].map(show_duration);
            self.problem(key, format_args!("{value} is out of bounds; choose from {least} to {most}"));
        }
    }
}

impl Config {
    /// Checks the announced addresses against the node's own peer id, and takes it off where it stands behind them.
    ///
    /// # Errors
    /// An address that names another peer, which dialers would then look for.
    pub fn fit_identity(&mut self, own: &PeerId) -> Result<(), ConfigError> {
        let mut problems = Vec::new();
        let lists = [
            ("announce", &mut self.announce),
            ("append_announce", &mut self.append_announce),
            ("provide.addresses", &mut self.provide.addresses),
        ];
        for (key, addrs) in lists {
            for addr in addrs {
                match strip_peer(addr.clone(), own) {
                    Some(stripped) => *addr = stripped,
                    None => problems
                        .push(format!("{key}: {addr} names another peer than this node, {own}; leave /p2p/… out")),
                }
            }
        }
        if problems.is_empty() { Ok(()) } else { Err(ConfigError::Invalid { problems }) }
    }

    /// `LIBP2P_FORCE_PNET=1` forbids to run in the open, here as in go-libp2p.
    ///
    /// # Errors
    /// If it is set and there is no swarm key.
    pub fn check_forced_privacy(&self) -> Result<(), ConfigError> {
        let forced = std::env::var_os("LIBP2P_FORCE_PNET").is_some_and(|value| value == "1");
        if forced && self.swarm_key.is_none() {
            return Err(ConfigError::invalid(
                "LIBP2P_FORCE_PNET=1 demands a private network, and there is no swarm key; set swarm_key, make one with `dhtstore init --private`, or unset the variable",
            ));
        }
        Ok(())
    }

    /// Checks bounds and what belongs together. Reads no file. All problems are reported at once.
    pub fn validate(&self) -> Result<Vec<Warning>, ConfigError> {
        let mut findings = Findings::default();
        self.check_addresses(&mut findings);
        self.check_times(&mut findings);
        self.check_limits(&mut findings);
        self.check_socket(&mut findings);
        self.check_jobs(&mut findings);
        if findings.problems.is_empty() {
            Ok(findings.warnings)
        } else {
            Err(ConfigError::Invalid { problems: findings.problems })
        }
    }

    fn check_addresses(&self, findings: &mut Findings) {
        if self.listen.is_empty() {
            findings.problem("listen", "no address; name at least one like \"/ip4/0.0.0.0/tcp/4001\"");
        }
        for addr in &self.listen {
            if !can_listen(addr) {
                findings.problem(
                    "listen",
                    format_args!(
                        "cannot listen on {addr}; write /ip4/…/tcp/PORT, /ip4/…/udp/PORT/quic-v1 or /ip4/…/tcp/PORT/tls/ws (or /ip6)"
                    ),
                );
            }
        }
        let announced = [
            ("announce", &self.announce),
            ("append_announce", &self.append_announce),
            ("provide.addresses", &self.provide.addresses),
        ];
        for (key, addrs) in announced {
            for addr in addrs.iter().filter(|a| !is_announceable(a)) {
                findings
                    .problem(key, format_args!("nobody can dial {addr}; name an address or host that others reach, with its port, like /ip4/…/tcp/PORT"));
            }
            // Content may be served elsewhere by other means.
            for addr in addrs.iter().filter(|a| key != "provide.addresses" && is_announceable(a) && !can_reach_us(a)) {
                findings.problem(key, format_args!("{addr}: {UNSPOKEN}"));
            }
        }
        for rule in &self.no_announce {
            if let Some(Err(message)) = no_announce::range(rule) {
                findings.problem("no_announce", message);
            }
        }
        for addr in &self.bootstrap {
            if reach(addr).is_none() {
                findings.problem(
                    "bootstrap",
                    format_args!("nobody can dial {addr}; write /ip4/…/tcp/PORT/p2p/<peer id> or the like"),
                );
            } else if !can_dial(addr) {
                findings.problem("bootstrap", format_args!("{addr}: {UNSPOKEN}"));
            } else if !matches!(addr.iter().last(), Some(Protocol::P2p(_))) {
                findings.problem("bootstrap", format_args!("{addr} lacks the peer id; append /p2p/<peer id>"));
            }
        }
        self.check_websockets(findings);
        self.check_private_swarm(findings);
        if self.routing.asn_database.is_some() && !Dht::ALL.into_iter().any(|dht| self.profile.ip_diversity(dht)) {
            findings.warn("routing.asn_database", "of no use: profile \"private\" limits no IP groups; unset it");
        }
    }

    fn check_private_swarm(&self, findings: &mut Findings) {
        if self.swarm_key.is_none() {
            return;
        }
        let defaults = Config::defaults(self.profile);
        if !self.listen.is_empty() && self.effective_listen().is_empty() {
            findings.problem(
                "listen",
                "a private swarm (swarm_key) works over TCP only; add an address like \"/ip4/0.0.0.0/tcp/4001\"",
            );
        } else if self.listen != defaults.listen && self.listen.iter().any(is_quic) {
            findings.warn("listen", "QUIC addresses are left out: a private swarm (swarm_key) works over TCP only");
        }
        if self.profile == Profile::Amino {
            findings.warn(
                "profile",
                "\"amino\" is the public network, but swarm_key shuts it out; use profile = \"private\"",
            );
        }
        if self.bootstrap.iter().any(is_public_bootstrapper) {
            findings.warn(
                "bootstrap",
                "the public bootstrappers do not know this swarm_key and cannot be reached; remove them",
            );
        }
    }

    fn check_times(&self, findings: &mut Findings) {
        let (ttl, interval) = (self.records.ttl, self.reprovide.interval);
        findings.duration("records.ttl", ttl, SECOND..=MAX_TTL);
        findings.duration("records.address_ttl", self.records.address_ttl, SECOND..=MAX_TTL);
        findings.duration("records.clock_grace", self.records.clock_grace, Duration::ZERO..=DAY);
        findings.duration("values.ttl", self.values.ttl, SECOND..=MAX_TTL);
        findings.duration("reprovide.interval", interval, SECOND..=MAX_TTL);
        findings.duration("relay.reservation_ttl", self.relay.reservation_ttl, SECOND..=DAY);
        findings.duration("relay.connection_duration_limit", self.relay.connection_duration_limit, SECOND..=DAY);
        findings.duration("connections.idle", self.connections.idle, SECOND..=DAY);
        findings.duration("streams.idle", self.streams.idle, SECOND..=DAY);
        findings.duration("streams.message_timeout", self.streams.message_timeout, SECOND..=DAY);
        if interval >= ttl {
            let [interval, ttl] = [interval, ttl].map(show_duration);
            findings.problem(
                "reprovide.interval",
                format_args!("{interval} is not below records.ttl ({ttl}): records would be gone before they are announced again; lower it or raise records.ttl"),
            );
        }
        if ttl < defaults::AMINO_TTL && self.bootstrap.iter().any(is_public_bootstrapper) {
            findings.warn("records.ttl", public_ttl_warning(ttl));
        }
    }

    fn check_limits(&self, findings: &mut Findings) {
        let (connections, streams, records) = (&self.connections, &self.streams, &self.records);
        findings.bounded("connections.max", connections.max, 1..=1_000_000);
        findings.bounded("connections.max_pending", connections.max_pending, 1..=1_000_000);
        findings.bounded("connections.max_pending_per_group", connections.max_pending_per_group, 1..=1_000_000);
        findings.bounded("connections.max_per_peer", connections.max_per_peer, 1..=1_000_000);
        findings.bounded("connections.max_per_ip", connections.max_per_ip, 1..=1_000_000);
        findings.bounded("streams.max_per_connection", streams.max_per_connection, MIN_STREAMS..=65_536);
        findings.bounded("streams.read_budget", streams.read_budget, 1 << 20..=1 << 36);
        findings.bounded("autonat.max_dials", self.autonat.max_dials, 1..=10_000);
        findings.bounded("autonat.max_dials_per_peer", self.autonat.max_dials_per_peer, 1..=10_000);
        findings.bounded("relay.max_reservations", self.relay.max_reservations, 1..=65_536);
        findings.bounded("relay.max_circuits", self.relay.max_circuits, 1..=65_536);
        findings.bounded("relay.connection_data_limit", self.relay.connection_data_limit, 1..=1 << 36);
        findings.bounded("store.reserve", self.store.reserve, 0..=1 << 46);
        if self.store.max_disk > 0 {
            findings.bounded("store.max_disk", self.store.max_disk, 64 << 20..=1 << 50);
        }
        findings.bounded("records.max", records.max, 1..=1_000_000_000);
        findings.bounded("records.max_per_provider", records.max_per_provider, 1..=1_000_000_000);
        findings.bounded("records.max_providers_per_key", records.max_providers_per_key, 1..=1_000_000);
        // The address book numbers peers with 32 bits.
        findings.bounded("records.max_peers", records.max_peers, 1..=100_000_000);
        findings.bounded("values.max", self.values.max, 1..=10_000_000);
        findings.bounded("values.max_bytes", self.values.max_bytes, 1 << 20..=1 << 36);
        findings.bounded("reprovide.max_cids", self.reprovide.max_cids, 0..=100_000_000);
    }

    fn check_socket(&self, findings: &mut Findings) {
        let path = self.control_socket();
        let length = path.as_os_str().len();
        if length > MAX_SOCKET_PATH_BYTES {
            findings.problem(
                "control.socket",
                format_args!(
                    "{} has {length} bytes, but the path of a socket may have {MAX_SOCKET_PATH_BYTES}; set control.socket to a short one like \"/run/dhtstore/control.sock\"",
                    path.display()
                ),
            );
        }
    }

    fn check_jobs(&self, findings: &mut Findings) {
        let jobs = &self.jobs;
        let mut job = |name: &str, job: &Job| {
            check_cron(findings, name, &job.cron);
            findings.duration(&format!("jobs.{name}.interval"), job.interval, SECOND..=MAX_TTL);
        };
        job("gc", &jobs.gc);
        job("routing-refresh", &jobs.routing_refresh);
        job("routing-snapshot", &jobs.routing_snapshot);
        job("flush-state", &jobs.flush_state);
        check_cron(findings, "reprovide", &jobs.reprovide.cron);
    }
}

/// Parsed by the scheduler itself, so that what passes here is what it takes; and it must fire at some time.
fn check_cron(findings: &mut Findings, job: &str, cron: &str) {
    let key = format!("jobs.{job}.cron");
    if tokio_cron_scheduler::Job::new(cron, |_, _| {}).is_err() {
        findings.problem(
            &key,
            format_args!("\"{cron}\" is not a cron expression; write six fields, \"sec min hour day month weekday\", like \"0 * * * * *\" for every minute"),
        );
    } else if !fires(cron) {
        findings
            .problem(&key, format_args!("\"{cron}\" never fires again: no month has that day, or its year is over; choose another day, month or year"));
    }
}

/// Whether a cron expression fires at some time from now on.
fn fires(cron: &str) -> bool {
    let parser = croner::parser::CronParser::builder().seconds(croner::parser::Seconds::Required).build();
    let now = SystemClock::new().wall();
    let from = chrono::DateTime::from_timestamp(i64::from(now.0), 0);
    let (Ok(parsed), Some(from)) = (parser.parse(cron), from) else { return true };
    parsed.find_next_occurrence(&from, true).is_ok()
}

fn public_ttl_warning(ttl: Duration) -> String {
    let shown = show_duration(ttl);
    let absent = PUBLIC_REPUBLISH.saturating_sub(ttl).as_secs() * 100 / PUBLIC_REPUBLISH.as_secs();
    let cost = if absent > 0 {
        format!(
            "publishers of the public network return every 22h, so their records would be absent {absent} % of the time"
        )
    } else {
        "the public network's specification asks for 48h, and a publisher that misses one round is lost".into()
    };
    format!("{shown} with a public bootstrapper: {cost}; set profile = \"amino\" or records.ttl = \"48h\"")
}

/// Somebody else may be able to dial it.
pub(crate) fn is_announceable(addr: &Multiaddr) -> bool {
    AddressScope::Any.hands_out(addr)
}

/// Whether an address that this node announces can lead to it: by a transport that it speaks, or through a relay.
pub(crate) fn can_reach_us(addr: &Multiaddr) -> bool {
    is_announceable(addr) && (can_dial(addr) || addr.iter().any(|part| part == Protocol::P2pCircuit))
}

/// By name (`bootstrap.libp2p.io` and below) or by the peer id of a known one.
pub(crate) fn is_public_bootstrapper(addr: &Multiaddr) -> bool {
    addr.iter().any(|part| match part {
        Protocol::Dnsaddr(name) | Protocol::Dns(name) | Protocol::Dns4(name) | Protocol::Dns6(name) => {
            name == "bootstrap.libp2p.io" || name.ends_with(".bootstrap.libp2p.io")
        }
        Protocol::P2p(peer) => {
            let tail = format!("/p2p/{peer}");
            defaults::AMINO_BOOTSTRAP.iter().any(|known| known.ends_with(&tail))
        }
        _ => false,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Routing;

    const PEER: &str = "/p2p/12D3KooWEyoppNCUx8Yx66oV9fJnriXwCcXwDDUA2kj6vnc6iDEp";

    fn config() -> Config {
        Config { data_dir: "/var/lib/dhtstore".into(), ..Config::defaults(Profile::Private) }
    }

    fn addrs(texts: &[&str]) -> Vec<Multiaddr> {
        texts.iter().map(|t| t.parse().unwrap()).collect()
    }

    #[track_caller]
    fn refused(config: &Config, words: &[&str]) {
        let text = config.validate().unwrap_err().to_string();
        for word in words {
            assert!(text.contains(word), "{word:?} is not in {text:?}");
        }
    }

    #[track_caller]
    fn warned(config: &Config, words: &[&str]) {
        let warnings = config.validate().unwrap();
        let text: String = warnings.iter().map(ToString::to_string).collect();
        for word in words {
            assert!(text.contains(word), "{word:?} is not in {text:?}");
        }
    }

    #[test]
    fn an_interval_not_below_the_ttl_is_refused() {
        let mut config = config();
        config.reprovide.interval = config.records.ttl;
        refused(&config, &["reprovide.interval", "12h", "records.ttl"]);
    }

    #[test]
    fn a_public_bootstrapper_with_a_short_ttl_is_warned_of_with_the_number() {
        let by_name = "/dnsaddr/bootstrap.libp2p.io/p2p/QmNnooDu7bfjPFoTZYxMNLWUQJyrVwtbZg5gBMjTezGAJN";
        let by_id = "/ip4/192.0.2.1/tcp/4001/p2p/QmaCpDMGvV2BGHeYERUEnRQAwe3N8SzbUtfsmvsqQLuvuJ";
        for addr in [by_name, by_id] {
            warned(&Config { bootstrap: addrs(&[addr]), ..config() }, &["records.ttl", "45 %", "amino"]);
        }
        let other = format!("/ip4/192.0.2.1/tcp/4001{PEER}");
        assert_eq!(Config { bootstrap: addrs(&[&other]), ..config() }.validate().unwrap(), vec![]);
    }

    #[test]
    fn a_private_swarm_is_tcp_only_and_not_public() {
        let private = Config { swarm_key: Some("/x/swarm.key".into()), ..config() };
        assert_eq!(private.validate().unwrap(), vec![]);
        assert!(!private.effective_listen().iter().any(is_quic));
        assert_eq!(private.effective_listen().len(), 2);
        let quic = addrs(&["/ip4/0.0.0.0/udp/4001/quic-v1"]);
        refused(&Config { listen: quic.clone(), ..private.clone() }, &["listen", "TCP only"]);
        let both = [quic, addrs(&["/ip4/0.0.0.0/tcp/4001"])].concat();
        warned(&Config { listen: both, ..private.clone() }, &["QUIC addresses are left out"]);
        let grouped =
            Config { routing: Routing { asn_database: Some("/x/asn.mmdb".into()), saved_peers: true }, ..config() };
        warned(&grouped, &["routing.asn_database", "of no use"]);
        let public = Config { profile: Profile::Amino, ..grouped };
        assert!(public.validate().unwrap().iter().all(|warning| warning.key != "routing.asn_database"));
        let amino = Config { swarm_key: private.swarm_key, ..Config::defaults(Profile::Amino) };
        warned(&amino, &["profile", "bootstrap"]);
    }

    #[test]
    fn all_problems_are_reported_at_once() {
        let mut config = config();
        config.listen.clear();
        config.jobs.gc.cron = "every day".into();
        config.connections.max = 0;
        config.bootstrap = addrs(&["/ip4/192.0.2.1/tcp/4001"]);
        config.no_announce = addrs(&["/ip4/10.0.0.0/ipcidr/40"]);
        config.announce = addrs(&["/ip4/0.0.0.0/tcp/4001"]);
        refused(
            &config,
            &["listen: no address", "jobs.gc.cron", "connections.max", "/p2p/<peer id>", "no_announce", "announce"],
        );
    }

    #[test]
    fn cron_is_six_fields() {
        for cron in ["* * * * *", "", "61 * * * * *", "x * * * * *"] {
            let mut config = config();
            config.jobs.reprovide.cron = cron.into();
            refused(&config, &["jobs.reprovide.cron", "six fields"]);
        }
    }

    #[test]
    fn cron_whose_year_is_over_is_refused() {
        let mut config = config();
        config.jobs.gc.cron = "0 0 0 1 1 * 2020".into();
        refused(&config, &["jobs.gc.cron", "never fires again"]);
        config.jobs.gc.cron = "0 0 0 29 2 *".into();
        assert_eq!(config.validate().unwrap(), vec![]);
    }

    #[test]
    fn listen_addresses_of_other_transports_are_refused() {
        for addr in [
            "/ip4/0.0.0.0/udp/4001",
            "/dns4/example.org/tcp/4001",
            "/ip4/0.0.0.0/udp/4001/quic-v1/webtransport",
            "/ip4/0.0.0.0/udp/4001/webrtc-direct",
            "/ip4/0.0.0.0/tcp/4002/tls/sni/example.org/ws",
            "/ip4/224.0.0.1/tcp/4001",
            "/ip4/255.255.255.255/udp/4001/quic-v1",
            "/ip6/ff02::1/tcp/4001",
            "/ip4/0.0.0.0/tcp/4002/x-parity-ws/%2Fpath",
        ] {
            refused(&Config { listen: addrs(&[addr]), ..config() }, &["listen", addr]);
        }
    }

    #[test]
    fn a_socket_path_beyond_107_bytes_is_refused_with_a_way_out() {
        let mut config = config();
        config.data_dir = format!("/{}", "d".repeat(94)).into();
        refused(&config, &["control.socket", "108 bytes", "/run/dhtstore"]);
        config.data_dir = format!("/{}", "d".repeat(93)).into();
        assert_eq!(config.validate().unwrap(), vec![]);
    }

    #[test]
    fn limits_that_would_serve_nobody_are_refused() {
        let mut config = config();
        config.streams.max_per_connection = 32;
        config.connections.max_per_ip = 0;
        config.records.max = 0;
        refused(&config, &["256", "connections.max_per_ip", "records.max"]);
    }
}
