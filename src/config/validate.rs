//! Checks settings beyond what their types ensure: the bounds in [`KEYS`](super::keys::KEYS), and settings that depend
//! on each other.

mod websocket;

use super::{
    Config, ConfigError, Profile, defaults,
    keys::{self, Kind},
    text::{show_bytes, show_duration},
};
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

/// Longest path of a Unix socket (`sun_path` holds 108 bytes with its final zero).
const MAX_SOCKET_PATH_BYTES: usize = 107;
/// Kubo's default `Provide.DHT.Interval`, the time after which publishers of the public network announce again.
const PUBLIC_REPUBLISH: Duration = Duration::from_secs(22 * 3600);
/// Smallest `store.max_disk` other than 0, which means no limit.
const MIN_DISK: usize = 64 << 20;

/// A setting that is allowed, but probably a mistake.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Warning {
    /// The setting.
    pub key: &'static str,
    /// The effect, and what to do.
    pub message: String,
}

impl fmt::Display for Warning {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.key, self.message)
    }
}

/// All problems and warnings, so that the operator can correct them in one go.
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

    fn number(&mut self, key: &str, value: u64) {
        if let Some(Kind::Number(bounds)) = keys::kind(key) {
            self.bounded(key, value, bounds, |number| number.to_string());
        }
    }

    fn size(&mut self, key: &str, value: usize) {
        if let Some(Kind::Size(bounds)) = keys::kind(key) {
            self.bounded(key, value, bounds, show_bytes);
        }
    }

    fn duration(&mut self, key: &str, value: Duration) {
        if let Some(Kind::Duration(bounds)) = keys::kind(key) {
            self.bounded(key, value, bounds, show_duration);
        }
    }

    fn bounded<T: Copy + PartialOrd>(
        &mut self,
        key: &str,
        value: T,
        bounds: &RangeInclusive<T>,
        show: impl Fn(T) -> String,
    ) {
        if !bounds.contains(&value) {
            let [value, least, most] = [value, *bounds.start(), *bounds.end()].map(show);
            self.problem(key, format_args!("{value} is out of bounds; choose from {least} to {most}"));
        }
    }
}

impl Config {
    /// Removes the node's own peer id from the end of each announced address.
    ///
    /// # Errors
    /// [`ConfigError::Invalid`] if an address names another peer, because dialers would then expect that peer.
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
                    None => {
                        problems.push(format!("{key}: {addr} names another peer than this node, {own}; remove /p2p/…"))
                    }
                }
            }
        }
        if problems.is_empty() { Ok(()) } else { Err(ConfigError::Invalid { problems }) }
    }

    /// Checks that a node with `LIBP2P_FORCE_PNET=1` in its environment has a swarm key, as go-libp2p does.
    ///
    /// # Errors
    /// [`ConfigError::Invalid`] if the variable is set and there is no swarm key.
    pub fn check_forced_privacy(&self) -> Result<(), ConfigError> {
        let forced = std::env::var_os("LIBP2P_FORCE_PNET").is_some_and(|value| value == "1");
        if forced && self.swarm_key.is_none() {
            return Err(ConfigError::invalid(
                "LIBP2P_FORCE_PNET=1 requires a private network, but there is no swarm key; set swarm_key, make a key \
                    with `dhtstore init --private`, or unset the variable",
            ));
        }
        Ok(())
    }

    /// Checks bounds, and settings that depend on each other. Reads no file. Returns warnings.
    ///
    /// # Errors
    /// [`ConfigError::Invalid`] with all problems.
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
            findings.problem("listen", "no address; set at least one like \"/ip4/0.0.0.0/tcp/4001\"");
        }
        for addr in &self.listen {
            if !can_listen(addr) {
                findings.problem(
                    "listen",
                    format_args!(
                        "cannot listen on {addr}; write /ip4/…/tcp/PORT, /ip4/…/udp/PORT/quic-v1 or \
                            /ip4/…/tcp/PORT/tls/ws (or /ip6)"
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
                findings.problem(
                    key,
                    format_args!(
                        "nobody can dial {addr}; set an address or host that other peers \
                        reach, with its port, like /ip4/…/tcp/PORT"
                    ),
                );
            }
            // provide.addresses may name another program, which speaks other transports.
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
                    format_args!("nobody can dial {addr}; write an address like /ip4/…/tcp/PORT/p2p/<peer id>"),
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
            findings
                .warn("routing.asn_database", "has no effect, since profile \"private\" limits no IP groups; unset it");
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
                "a private swarm (swarm_key) uses TCP only; add an address like \"/ip4/0.0.0.0/tcp/4001\"",
            );
        } else if self.listen != defaults.listen && self.listen.iter().any(is_quic) {
            findings.warn(
                "listen",
                "QUIC addresses are left out, since a private swarm (swarm_key) uses TCP only; \
                the TCP addresses work",
            );
        }
        if self.profile == Profile::Amino {
            findings.warn(
                "profile",
                "\"amino\" is the public network, which a node with a swarm_key cannot join; use profile = \"private\"",
            );
        }
        if self.bootstrap.iter().any(is_public_bootstrapper) {
            findings.warn(
                "bootstrap",
                "the public bootstrappers cannot be reached, since they do not have this swarm_key; remove them",
            );
        }
    }

    fn check_times(&self, findings: &mut Findings) {
        let (ttl, interval) = (self.records.ttl, self.reprovide.interval);
        let (jobs, relay, streams) = (&self.jobs, &self.relay, &self.streams);
        for (key, value) in [
            ("records.ttl", ttl),
            ("records.address_ttl", self.records.address_ttl),
            ("records.clock_grace", self.records.clock_grace),
            ("values.ttl", self.values.ttl),
            ("reprovide.interval", interval),
            ("relay.reservation_ttl", relay.reservation_ttl),
            ("relay.connection_duration_limit", relay.connection_duration_limit),
            ("connections.idle", self.connections.idle),
            ("streams.idle", streams.idle),
            ("streams.message_timeout", streams.message_timeout),
            ("jobs.gc.interval", jobs.gc.interval),
            ("jobs.routing-refresh.interval", jobs.routing_refresh.interval),
            ("jobs.routing-snapshot.interval", jobs.routing_snapshot.interval),
            ("jobs.flush-state.interval", jobs.flush_state.interval),
        ] {
            findings.duration(key, value);
        }
        if interval >= ttl {
            let [interval, ttl] = [interval, ttl].map(show_duration);
            findings.problem(
                "reprovide.interval",
                format_args!(
                    "{interval} is not below records.ttl ({ttl}): records would expire before they are \
                    announced again; lower it or raise records.ttl"
                ),
            );
        }
        if ttl < defaults::AMINO_TTL && self.bootstrap.iter().any(is_public_bootstrapper) {
            findings.warn("records.ttl", public_ttl_warning(ttl));
        }
    }

    fn check_limits(&self, findings: &mut Findings) {
        let (connections, records) = (&self.connections, &self.records);
        for (key, value) in [
            ("connections.max", connections.max),
            ("connections.max_pending", connections.max_pending),
            ("connections.max_pending_per_group", connections.max_pending_per_group),
            ("connections.max_per_peer", connections.max_per_peer),
            ("connections.max_per_ip", connections.max_per_ip),
        ] {
            findings.number(key, value.into());
        }
        for (key, value) in [
            ("streams.max_per_connection", self.streams.max_per_connection),
            ("autonat.max_dials", self.autonat.max_dials),
            ("autonat.max_dials_per_peer", self.autonat.max_dials_per_peer),
            ("relay.max_reservations", self.relay.max_reservations),
            ("relay.max_circuits", self.relay.max_circuits),
            ("records.max", records.max),
            ("records.max_per_provider", records.max_per_provider),
            ("records.max_providers_per_key", records.max_providers_per_key),
            ("records.max_peers", records.max_peers),
            ("values.max", self.values.max),
            ("reprovide.max_cids", self.reprovide.max_cids),
        ] {
            findings.number(key, value as u64);
        }
        for (key, value) in [
            ("streams.read_budget", self.streams.read_budget),
            ("relay.connection_data_limit", self.relay.connection_data_limit),
            ("store.reserve", self.store.reserve),
            ("store.max_disk", self.store.max_disk),
            ("values.max_bytes", self.values.max_bytes),
        ] {
            findings.size(key, value);
        }
        if (1..MIN_DISK).contains(&self.store.max_disk) {
            let [max, least] = [self.store.max_disk, MIN_DISK].map(show_bytes);
            findings.problem(
                "store.max_disk",
                format_args!("{max} is too little; choose at least {least}, or 0B for no limit"),
            );
        }
    }

    fn check_socket(&self, findings: &mut Findings) {
        let path = self.control_socket();
        let length = path.as_os_str().len();
        if length > MAX_SOCKET_PATH_BYTES {
            findings.problem(
                "control.socket",
                format_args!(
                    "{} has {length} bytes, but the path of a socket has at most {MAX_SOCKET_PATH_BYTES}; set \
                        control.socket to a short one like \"/run/dhtstore/control.sock\"",
                    path.display()
                ),
            );
        }
    }

    fn check_jobs(&self, findings: &mut Findings) {
        let jobs = &self.jobs;
        check_cron(findings, "jobs.gc.cron", &jobs.gc.cron);
        check_cron(findings, "jobs.reprovide.cron", &jobs.reprovide.cron);
        check_cron(findings, "jobs.routing-refresh.cron", &jobs.routing_refresh.cron);
        check_cron(findings, "jobs.routing-snapshot.cron", &jobs.routing_snapshot.cron);
        check_cron(findings, "jobs.flush-state.cron", &jobs.flush_state.cron);
    }
}

/// Checks that the scheduler itself can parse the expression, and that the expression fires at some time.
fn check_cron(findings: &mut Findings, key: &str, cron: &str) {
    if tokio_cron_scheduler::Job::new(cron, |_, _| {}).is_err() {
        findings.problem(
            key,
            format_args!(
                "\"{cron}\" is not a cron expression; write six fields, \"sec min hour day month weekday\", \
                like \"0 * * * * *\" for every minute"
            ),
        );
    } else if !fires(cron) {
        findings.problem(
            key,
            format_args!(
                "\"{cron}\" never fires again: no month has that day, or its year is over; \
                choose another day, month or year"
            ),
        );
    }
}

/// Returns whether a cron expression fires at some time from now on.
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
            "publishers of the public network return every 22h, so their records would be \
                missing {absent} % of the time"
        )
    } else {
        "the specification of the public network asks for 48h, and records of a publisher \
            that misses one round would be lost"
            .into()
    };
    format!(
        "{shown} is short for a network with a public bootstrapper: {cost}; set profile = \"amino\" or \
        records.ttl = \"48h\""
    )
}

/// Returns whether another peer may be able to dial the address.
pub(crate) fn is_announceable(addr: &Multiaddr) -> bool {
    AddressScope::Any.hands_out(addr)
}

/// Returns whether an announced address can lead to this node: by a transport that it speaks, or through a relay.
pub(crate) fn can_reach_us(addr: &Multiaddr) -> bool {
    is_announceable(addr) && (can_dial(addr) || addr.iter().any(|part| part == Protocol::P2pCircuit))
}

/// Returns whether the address is that of a public bootstrapper, by its name (`bootstrap.libp2p.io` and below) or peer
/// id.
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
        warned(&grouped, &["routing.asn_database", "has no effect"]);
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
    fn a_value_outside_of_the_bounds_of_its_setting_is_refused() {
        let beyond = |key: &str, value: String| {
            let mut table = toml::Table::try_from(config()).unwrap();
            let mut parts: Vec<&str> = key.split('.').collect();
            let name = parts.pop().unwrap();
            let section = parts.iter().fold(&mut table, |table, part| table[*part].as_table_mut().unwrap());
            let number = value.parse().map(toml::Value::Integer);
            section.insert(name.into(), number.unwrap_or(toml::Value::String(value)));
            refused(&table.try_into().unwrap(), &[key]);
        };
        for (key, kind) in &keys::KEYS {
            match kind {
                Kind::Number(bounds) => {
                    beyond(key, (bounds.end() + 1).to_string());
                    if let Some(less) = bounds.start().checked_sub(1) {
                        beyond(key, less.to_string());
                    }
                }
                Kind::Size(bounds) => {
                    beyond(key, format!("{}B", bounds.end() + 1));
                    if let Some(less) = bounds.start().checked_sub(1) {
                        beyond(key, format!("{less}B"));
                    }
                }
                Kind::Duration(bounds) => {
                    beyond(key, format!("{}s", bounds.end().as_secs() + 1));
                    if !bounds.start().is_zero() {
                        beyond(key, "0s".into());
                    }
                }
                _ => {}
            }
        }
        beyond("store.max_disk", "63MiB".into());
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
