//! The transport that ends an inbound handshake when its ticket is withdrawn.

use super::{Door, Place};
use futures::{FutureExt, future::Either};
use libp2p::{
    Multiaddr, Transport,
    core::transport::{DialOpts, ListenerId, TransportError, TransportEvent},
};
use std::{
    future::{Future, Ready},
    io,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};

/// A transport whose inbound upgrades pass the door. Dials pass unchanged.
pub(crate) struct Guarded<T> {
    inner: T,
    door: Arc<Door>,
}

impl<T> Guarded<T> {
    pub(crate) fn new(inner: T, door: Arc<Door>) -> Self {
        Self { inner, door }
    }
}

/// An inbound upgrade with its place.
pub(crate) struct Held<U> {
    upgrade: U,
    place: Place,
}

impl<U, O> Future for Held<U>
where
    U: Future<Output = Result<O, io::Error>> + Unpin,
{
    type Output = Result<O, io::Error>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        // The sender never sends: dropping it ends the handshake.
        if self.place.gives_way.poll_unpin(context).is_ready() {
            return Poll::Ready(Err(io::Error::other("gave way to a newcomer")));
        }
        self.upgrade.poll_unpin(context)
    }
}

type Upgrade<U, O> = Either<Held<U>, Ready<Result<O, io::Error>>>;

impl<T> Transport for Guarded<T>
where
    T: Transport<Error = io::Error> + Unpin,
    T::ListenerUpgrade: Unpin,
    T::Output: Unpin,
{
    type Output = T::Output;
    type Error = io::Error;
    type ListenerUpgrade = Upgrade<T::ListenerUpgrade, T::Output>;
    type Dial = T::Dial;

    fn listen_on(&mut self, id: ListenerId, addr: Multiaddr) -> Result<(), TransportError<Self::Error>> {
        self.inner.listen_on(id, addr)
    }

    fn remove_listener(&mut self, id: ListenerId) -> bool {
        self.inner.remove_listener(id)
    }

    fn dial(&mut self, addr: Multiaddr, opts: DialOpts) -> Result<Self::Dial, TransportError<Self::Error>> {
        self.inner.dial(addr, opts)
    }

    fn poll(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<TransportEvent<Self::ListenerUpgrade, Self::Error>> {
        let this = &mut *self;
        let door = &this.door;
        Pin::new(&mut this.inner).poll(context).map(|event| match event {
            TransportEvent::Incoming { listener_id, upgrade, local_addr, send_back_addr } => {
                let upgrade = match door.arrives(&send_back_addr) {
                    Some(place) => Either::Left(Held { upgrade, place }),
                    None => {
                        Either::Right(std::future::ready(Err(io::Error::other("too many handshakes are under way"))))
                    }
                };
                TransportEvent::Incoming { listener_id, upgrade, local_addr, send_back_addr }
            }
            other => other.map_upgrade(|_| unreachable_upgrade()),
        })
    }
}

/// Events other than `Incoming` carry no upgrade.
fn unreachable_upgrade<U, O>() -> Upgrade<U, O> {
    Either::Right(std::future::ready(Err(io::Error::other("no upgrade"))))
}
