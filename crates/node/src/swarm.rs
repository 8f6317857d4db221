//! The libp2p swarm: transports, and the behaviours beside our streams.

pub(crate) mod driver;
mod ip_limits;

use crate::{
    door::{Door, Guarded},
    error::NodeError,
    kad::Dht,
    metrics::Metrics,
    nat::guard,
    settings::{Relay, Settings},
    streams,
};
use dhtstore_host::clock::Clock;
use dhtstore_transport::{self as transport, certificate::Certificates};
use libp2p::{
    Swarm, Transport, autonat,
    connection_limits::{self, ConnectionLimits},
    identify,
    identity::Keypair,
    ping,
    pnet::PreSharedKey,
    relay,
    swarm::{self, NetworkBehaviour, behaviour::toggle::Toggle},
};
use std::sync::Arc;

/// Identify, ping and what else is open beside our own streams on one connection.
const OTHER_STREAMS: usize = 64;

/// The behaviours. `streams` comes last: see there.
#[derive(NetworkBehaviour)]
pub(crate) struct Behaviour {
    limits: connection_limits::Behaviour,
    ip_limits: ip_limits::Behaviour,
    identify: identify::Behaviour,
    ping: ping::Behaviour,
    autonat_v1: Toggle<guard::Guard<autonat::v1::Behaviour>>,
    autonat_v2: Toggle<guard::Guard<autonat::v2::server::Behaviour>>,
    relay: Toggle<relay::Behaviour>,
    streams: streams::Behaviour,
}

/// Builds the swarm. Nothing is bound yet.
pub(crate) fn build(
    settings: &Settings,
    identity: Keypair,
    psk: Option<PreSharedKey>,
    streams: streams::Behaviour,
    door: Arc<Door>,
    certificates: Arc<Certificates>,
    (clock, metrics): (&Arc<dyn Clock>, &Arc<Metrics>),
) -> Result<Swarm<Behaviour>, NodeError> {
    let streams_of_others = settings.streams.max_per_connection + OTHER_STREAMS;
    let limits = transport::Settings {
        max_inbound_streams: streams_of_others,
        // As many again for our own requests.
        max_streams: streams_of_others + settings.streams.max_per_connection,
    };
    let transport = transport::build(&limits, &identity, psk, certificates, clock).map_err(NodeError::Transport)?;
    let transport = Guarded::new(transport, door).boxed();
    let local = identity.public().to_peer_id();
    let limits = ConnectionLimits::default()
        .with_max_established(Some(settings.connections.max))
        // Not all of them inbound: whoever dials a lot must not keep us from asking others.
        .with_max_established_incoming(Some(settings.connections.max - settings.connections.max / 8))
        // The door bounds them; those that gave way are still counted there until their tasks have ended.
        .with_max_pending_incoming(Some(settings.connections.max_pending.saturating_mul(2)))
        .with_max_pending_outgoing(Some(settings.connections.max_pending))
        .with_max_established_per_peer(Some(settings.connections.max_per_peer));
    let identify = identify::Config::new("ipfs/0.1.0".to_owned(), identity.public())
        .with_agent_version(concat!("dhtstore/", env!("CARGO_PKG_VERSION")).to_owned())
        // What we announce is set as external addresses: `announce` and `no_announce` hold here too.
        .with_hide_listen_addrs(true)
        .with_push_listen_addr_updates(true)
        // The address book is ours.
        .with_cache_size(0);
    let (scope, help) = (settings.profile.scope(Dht::Wan), &settings.autonat);
    let autonat_v1 = help.enabled.then(|| guard::v1(local, scope, help, clock.clone(), metrics.clone()));
    let autonat_v2 = help.enabled.then(|| guard::v2(scope, help, clock.clone(), metrics.clone()));
    let behaviour = Behaviour {
        limits: connection_limits::Behaviour::new(limits),
        ip_limits: ip_limits::Behaviour::new(settings.connections.max_per_ip, metrics.clone()),
        identify: identify::Behaviour::new(identify),
        ping: ping::Behaviour::default(),
        autonat_v1: autonat_v1.into(),
        autonat_v2: autonat_v2.into(),
        relay: settings.relay.as_ref().map(|limits| relay::Behaviour::new(local, relay_limits(limits))).into(),
        streams,
    };
    let swarm_config = swarm::Config::with_tokio_executor()
        .with_idle_connection_timeout(settings.connections.idle)
        .with_max_negotiating_inbound_streams(streams_of_others)
        // One handshake after the other rather than all of a peer's addresses at once.
        .with_smart_dial();
    Ok(Swarm::new(transport, behaviour, local, swarm_config))
}

/// How much of this node others may use to reach each other. Beside the settings libp2p's own limits hold: 4
/// reservations and 4 circuits a peer, 30 new ones an hour for each peer and 60 for each IP address.
fn relay_limits(limits: &Relay) -> relay::Config {
    relay::Config {
        max_reservations: limits.max_reservations,
        max_circuits: limits.max_circuits,
        reservation_duration: limits.reservation_ttl,
        max_circuit_duration: limits.connection_duration_limit,
        max_circuit_bytes: limits.connection_data_limit,
        ..relay::Config::default()
    }
}
