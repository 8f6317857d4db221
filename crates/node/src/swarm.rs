//! Builds the libp2p swarm: transports and behaviours.

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

/// Most streams of identify, ping and other libp2p protocols on one connection, in addition to ours.
const OTHER_STREAMS: usize = 64;

/// The behaviours of the node. `streams` must come last: see [`streams::Behaviour`].
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

/// Builds the swarm without binding any listener.
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
    let transport = transport::build(&limits, &identity, psk, certificates, clock)
        .map_err(|error| NodeError::Transport(error.into()))?;
    let transport = Guarded::new(transport, door).boxed();
    let local = identity.public().to_peer_id();
    let limits = ConnectionLimits::default()
        .with_max_established(Some(settings.connections.max))
        // An eighth is reserved for outbound ones: peers that dial a lot must not keep us from asking others.
        .with_max_established_incoming(Some(settings.connections.max - settings.connections.max / 8))
        // The door is the real limit. libp2p still counts handshakes that gave way until their tasks have ended.
        .with_max_pending_incoming(Some(settings.connections.max_pending.saturating_mul(2)))
        .with_max_pending_outgoing(Some(settings.connections.max_pending))
        .with_max_established_per_peer(Some(settings.connections.max_per_peer));
    let identify = identify::Config::new("ipfs/0.1.0".to_owned(), identity.public())
        .with_agent_version(concat!("dhtstore/", env!("CARGO_PKG_VERSION")).to_owned())
        // We set what we announce as external addresses, so that `announce` and `no_announce` apply to identify too.
        .with_hide_listen_addrs(true)
        .with_push_listen_addr_updates(true)
        // We have our own address book.
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
        // Tries a peer's addresses one after the other instead of all at once.
        .with_smart_dial();
    Ok(Swarm::new(transport, behaviour, local, swarm_config))
}

/// Returns the limits of the relay. In addition to the settings, libp2p's own limits apply: 4 reservations and 4
/// circuits per peer, and 30 new ones an hour for each peer and 60 for each IP address.
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
