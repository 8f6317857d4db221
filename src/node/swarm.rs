//! The libp2p swarm: transports, and the behaviours beside our streams.

use super::{
    NodeError, Shared,
    certificate::Certificates,
    door::{Door, Guarded},
    ip_limits,
    muxer::Yamux,
    names::{Logged, Names},
    nat::guard,
    security::Security,
    stream_ends::TellsEnds,
    streams,
    websocket::WebSockets,
};
use crate::{clock::Clock, config::Config, kad::Dht};
use futures::{AsyncRead, AsyncWrite};
use libp2p::{
    PeerId, Swarm, Transport, autonat,
    connection_limits::{self, ConnectionLimits},
    core::{
        muxing::{StreamMuxer, StreamMuxerBox},
        transport::{Boxed, timeout::TransportTimeout},
        upgrade::Version,
    },
    identify,
    identity::Keypair,
    ping,
    pnet::{PnetConfig, PreSharedKey},
    quic, relay,
    swarm::{self, NetworkBehaviour, behaviour::toggle::Toggle},
    tcp,
};
use std::{sync::Arc, time::Duration};

/// A handshake that takes longer is given up, for inbound and outbound connections.
pub(crate) const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);

/// Identify, ping and what else is open beside our own streams on one connection.
const OTHER_STREAMS: usize = 64;

/// Most streams that yamux can be told: its receive window of 1 GiB must hold 256 KiB for each.
const YAMUX_MAX_STREAMS: usize = 4096;

/// Unread bytes that QUIC takes per stream and per connection. A request has 64 KiB at most, and the other streams
/// must not starve behind one.
const QUIC_STREAM_WINDOW: u32 = 256 * 1024;
const QUIC_CONNECTION_WINDOW: u32 = 4 * 1024 * 1024;

/// The behaviours. `streams` comes last: see there.
#[derive(NetworkBehaviour)]
pub(crate) struct Behaviour {
    limits: connection_limits::Behaviour,
    ip_limits: ip_limits::Behaviour,
    pub(super) identify: identify::Behaviour,
    ping: ping::Behaviour,
    autonat_v1: Toggle<guard::Guard<autonat::v1::Behaviour>>,
    autonat_v2: Toggle<guard::Guard<autonat::v2::server::Behaviour>>,
    relay: Toggle<relay::Behaviour>,
    streams: streams::Behaviour,
}

/// Builds the swarm. Nothing is bound yet.
pub(crate) fn build(
    config: &Config,
    identity: Keypair,
    psk: Option<PreSharedKey>,
    streams: streams::Behaviour,
    shared: &Shared,
    certificates: Arc<Certificates>,
) -> Result<Swarm<Behaviour>, NodeError> {
    let (counters, clock) = (&shared.counters, &shared.clock);
    let transport = transport(config, &identity, psk, certificates, shared.door.clone(), clock)?;
    let local = identity.public().to_peer_id();
    let limits = ConnectionLimits::default()
        .with_max_established(Some(config.connections.max))
        // Not all of them inbound: whoever dials a lot must not keep us from asking others.
        .with_max_established_incoming(Some(config.connections.max - config.connections.max / 8))
        // The door bounds them; those that gave way are still counted there until their tasks have ended.
        .with_max_pending_incoming(Some(config.connections.max_pending.saturating_mul(2)))
        .with_max_pending_outgoing(Some(config.connections.max_pending))
        .with_max_established_per_peer(Some(config.connections.max_per_peer));
    let identify = identify::Config::new("ipfs/0.1.0".to_owned(), identity.public())
        .with_agent_version(concat!("dhtstore/", env!("CARGO_PKG_VERSION")).to_owned())
        // What we announce is set as external addresses: `announce` and `no_announce` hold here too.
        .with_hide_listen_addrs(true)
        .with_push_listen_addr_updates(true)
        // The address book is ours.
        .with_cache_size(0);
    let (scope, help) = (config.profile.scope(Dht::Wan), &config.autonat);
    let autonat_v1 = help.enabled.then(|| guard::v1(local, scope, help, clock.clone(), counters.clone()));
    let autonat_v2 = help.enabled.then(|| guard::v2(scope, help, clock.clone(), counters.clone()));
    let behaviour = Behaviour {
        limits: connection_limits::Behaviour::new(limits),
        ip_limits: ip_limits::Behaviour::new(config.connections.max_per_ip, counters.clone()),
        identify: identify::Behaviour::new(identify),
        ping: ping::Behaviour::default(),
        autonat_v1: autonat_v1.into(),
        autonat_v2: autonat_v2.into(),
        relay: config.relay.enabled.then(|| relay::Behaviour::new(local, relay_limits(config))).into(),
        streams,
    };
    let swarm_config = swarm::Config::with_tokio_executor()
        .with_idle_connection_timeout(config.connections.idle)
        .with_max_negotiating_inbound_streams(config.streams.max_per_connection + OTHER_STREAMS)
        // One handshake after the other rather than all of a peer's addresses at once.
        .with_smart_dial();
    Ok(Swarm::new(transport, behaviour, local, swarm_config))
}

/// How much of this node others may use to reach each other. Beside the settings libp2p's own limits hold: 4
/// reservations and 4 circuits a peer, 30 new ones an hour for each peer and 60 for each IP address.
fn relay_limits(config: &Config) -> relay::Config {
    let limits = &config.relay;
    relay::Config {
        max_reservations: limits.max_reservations,
        max_circuits: limits.max_circuits,
        reservation_duration: limits.reservation_ttl,
        max_circuit_duration: limits.connection_duration_limit,
        max_circuit_bytes: limits.connection_data_limit as u64,
        ..relay::Config::default()
    }
}

/// A connection that knows its peer, whatever carries it.
type Peered = Boxed<(PeerId, StreamMuxerBox)>;

/// WebSockets first: they resolve names themselves, to check certificates against them. A `/dnsaddr` is resolved behind
/// them, so a WebSocket address in its TXT records is not dialled.
fn transport(
    config: &Config,
    identity: &Keypair,
    psk: Option<PreSharedKey>,
    certificates: Arc<Certificates>,
    door: Arc<Door>,
    clock: &Arc<dyn Clock>,
) -> Result<Peered, NodeError> {
    let upgrade = Upgrade::new(config, identity, psk)?;
    let logged = Logged::default();
    let websockets =
        upgrade.apply(WebSockets::new(Names::new(tcp().boxed(), clock.clone(), logged.clone()).boxed(), certificates));
    let tcp = upgrade.apply(tcp());
    let direct = match psk {
        Some(_) => tcp,
        None => tcp.or_transport(quic(config, identity)).map(|either, _| either.into_inner()).boxed(),
    };
    let others = Names::new(direct, clock.clone(), logged).boxed();
    let all = websockets.or_transport(others).map(|either, _| either.into_inner());
    Ok(Guarded::new(TransportTimeout::new(all, HANDSHAKE_TIMEOUT).boxed(), door).boxed())
}

fn tcp() -> tcp::tokio::Transport {
    tcp::tokio::Transport::new(tcp::Config::new().nodelay(true))
}

fn quic(config: &Config, identity: &Keypair) -> Peered {
    let mut quic = quic::Config::new(identity);
    let streams = config.streams.max_per_connection + OTHER_STREAMS;
    quic.max_concurrent_stream_limit = u32::try_from(streams).unwrap_or(u32::MAX);
    quic.max_stream_data = QUIC_STREAM_WINDOW;
    quic.max_connection_data = QUIC_CONNECTION_WINDOW;
    quic::tokio::Transport::new(quic).map(|(peer, muxer), _| (peer, boxed(muxer))).boxed()
}

fn boxed<M>(muxer: M) -> StreamMuxerBox
where
    M: StreamMuxer<Substream: Send + Unpin, Error: Send + Sync> + Send + Unpin + 'static,
{
    StreamMuxerBox::new(TellsEnds::new(muxer))
}

/// What turns a stream of bytes into a connection: the pre-shared key of a private network below all else (inside a
/// WebSocket, as in go), then noise or TLS, and yamux.
struct Upgrade {
    psk: Option<PreSharedKey>,
    security: Security,
    muxer: Yamux,
}

impl Upgrade {
    fn new(config: &Config, identity: &Keypair, psk: Option<PreSharedKey>) -> Result<Self, NodeError> {
        let security = Security::new(identity).map_err(NodeError::Transport)?;
        // As many again for our own requests.
        let streams = 2 * config.streams.max_per_connection + OTHER_STREAMS;
        let muxer = Yamux::with_max_streams(streams.min(YAMUX_MAX_STREAMS));
        Ok(Self { psk, security, muxer })
    }

    fn apply<T>(&self, transport: T) -> Peered
    where
        T: Transport<Output: AsyncRead + AsyncWrite + Send + Unpin + 'static, Error: Send + Sync + 'static>
            + Send
            + Unpin
            + 'static,
        T::Dial: Send + 'static,
        T::ListenerUpgrade: Send + 'static,
    {
        let (security, muxer) = (self.security.clone(), self.muxer.clone());
        match self.psk {
            None => transport
                .upgrade(Version::V1Lazy)
                .authenticate(security)
                .multiplex(muxer)
                .map(|(peer, muxer), _| (peer, boxed(muxer)))
                .boxed(),
            Some(psk) => transport
                .and_then(move |socket, _| PnetConfig::new(psk).handshake(socket))
                .upgrade(Version::V1Lazy)
                .authenticate(security)
                .multiplex(muxer)
                .map(|(peer, muxer), _| (peer, boxed(muxer)))
                .boxed(),
        }
    }
}
