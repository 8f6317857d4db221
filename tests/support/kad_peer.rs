//! An independent DHT peer: stock `libp2p-kad` on TCP over loopback, as client or server.

use futures::StreamExt;
use libp2p::{
    Multiaddr, PeerId, Swarm, SwarmBuilder, identify, noise,
    swarm::{NetworkBehaviour, SwarmEvent},
    tcp, yamux,
};
use libp2p_kad::{self as kad, QueryId, store::MemoryStore};
use std::{collections::HashMap, time::Duration};
use tokio::sync::{mpsc, oneshot};

#[derive(NetworkBehaviour)]
struct Behaviour {
    kad: kad::Behaviour<MemoryStore>,
    identify: identify::Behaviour,
}

enum Command {
    Know(PeerId, Multiaddr),
    Bootstrap(oneshot::Sender<()>),
    Announce(Vec<u8>, oneshot::Sender<bool>),
    Find(Vec<u8>, oneshot::Sender<Vec<PeerId>>),
}

/// A running peer; ends when dropped.
pub struct KadPeer {
    pub id: PeerId,
    pub addr: Multiaddr,
    commands: mpsc::Sender<Command>,
    task: tokio::task::JoinHandle<()>,
}

impl Drop for KadPeer {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl KadPeer {
    pub async fn start(mode: kad::Mode) -> Self {
        let mut swarm = SwarmBuilder::with_new_identity()
            .with_tokio()
            .with_tcp(tcp::Config::default().nodelay(true), noise::Config::new, yamux::Config::default)
            .unwrap()
            .with_behaviour(|key| {
                let id = key.public().to_peer_id();
                let mut config = kad::Config::new(kad::PROTOCOL_NAME);
                config.set_periodic_bootstrap_interval(None).set_provider_publication_interval(None);
                let mut kad = kad::Behaviour::with_config(id, MemoryStore::new(id), config);
                kad.set_mode(Some(mode));
                let identify = identify::Config::new("ipfs/0.1.0".into(), key.public());
                Behaviour { kad, identify: identify::Behaviour::new(identify) }
            })
            .unwrap()
            .with_swarm_config(|c| c.with_idle_connection_timeout(Duration::from_secs(30)))
            .build();
        swarm.listen_on("/ip4/127.0.0.1/tcp/0".parse().unwrap()).unwrap();
        let addr = loop {
            if let SwarmEvent::NewListenAddr { address, .. } = swarm.select_next_some().await {
                break address;
            }
        };
        swarm.add_external_address(addr.clone());
        let id = *swarm.local_peer_id();
        let (commands, inbox) = mpsc::channel(64);
        let task = tokio::spawn(drive(swarm, inbox));
        Self { id, addr, commands, task }
    }

    pub async fn know(&self, peer: PeerId, addr: Multiaddr) {
        self.commands.send(Command::Know(peer, addr)).await.unwrap();
    }

    /// Ends when the look-ups of a bootstrap have ended.
    pub async fn bootstrap(&self) {
        let (done, wait) = oneshot::channel();
        self.commands.send(Command::Bootstrap(done)).await.unwrap();
        tokio::time::timeout(Duration::from_secs(30), wait).await.expect("bootstrap ends").unwrap();
    }

    /// True when libp2p-kad thinks that it has announced `multihash`.
    pub async fn announce(&self, multihash: &[u8]) -> bool {
        let (done, wait) = oneshot::channel();
        self.commands.send(Command::Announce(multihash.to_vec(), done)).await.unwrap();
        tokio::time::timeout(Duration::from_secs(30), wait).await.expect("announce ends").unwrap()
    }

    pub async fn find_providers(&self, multihash: &[u8]) -> Vec<PeerId> {
        let (done, wait) = oneshot::channel();
        self.commands.send(Command::Find(multihash.to_vec(), done)).await.unwrap();
        tokio::time::timeout(Duration::from_secs(30), wait).await.expect("query ends").unwrap()
    }
}

async fn drive(mut swarm: Swarm<Behaviour>, mut inbox: mpsc::Receiver<Command>) {
    let mut bootstraps: HashMap<QueryId, oneshot::Sender<()>> = HashMap::new();
    let mut announces: HashMap<QueryId, oneshot::Sender<bool>> = HashMap::new();
    let mut finds: HashMap<QueryId, (Vec<PeerId>, oneshot::Sender<Vec<PeerId>>)> = HashMap::new();
    loop {
        tokio::select! {
            command = inbox.recv() => match command {
                None => return,
                Some(Command::Know(peer, addr)) => {
                    swarm.behaviour_mut().kad.add_address(&peer, addr);
                }
                Some(Command::Bootstrap(done)) => {
                    let id = swarm.behaviour_mut().kad.bootstrap().unwrap();
                    bootstraps.insert(id, done);
                }
                Some(Command::Announce(key, done)) => {
                    let id = swarm.behaviour_mut().kad.start_providing(kad::RecordKey::from(key)).unwrap();
                    announces.insert(id, done);
                }
                Some(Command::Find(key, done)) => {
                    let id = swarm.behaviour_mut().kad.get_providers(kad::RecordKey::from(key));
                    finds.insert(id, (Vec::new(), done));
                }
            },
            event = swarm.select_next_some() => {
                let SwarmEvent::Behaviour(BehaviourEvent::Kad(kad::Event::OutboundQueryProgressed { id, result, step, .. })) = event
                else { continue };
                match result {
                    kad::QueryResult::Bootstrap(_) if step.last => {
                        if let Some(done) = bootstraps.remove(&id) {
                            done.send(()).ok();
                        }
                    }
                    kad::QueryResult::StartProviding(result) => {
                        if let Some(done) = announces.remove(&id) {
                            done.send(result.is_ok()).ok();
                        }
                    }
                    kad::QueryResult::GetProviders(result) => {
                        if let Ok(kad::GetProvidersOk::FoundProviders { providers, .. }) = result
                            && let Some((found, _)) = finds.get_mut(&id)
                        {
                            found.extend(providers);
                        }
                        if step.last && let Some((mut found, done)) = finds.remove(&id) {
                            found.sort();
                            found.dedup();
                            done.send(found).ok();
                        }
                    }
                    _ => {}
                }
            }
        }
    }
}
