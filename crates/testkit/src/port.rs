//! Chooses ports for processes that bind them later.

use std::{
    net::{TcpListener, UdpSocket},
    sync::atomic::{AtomicU32, Ordering},
};

/// The ports to choose from. They are below the range for outgoing connections (from 32,768 on Linux), because a
/// connection of another test could take a port of that range before the process binds it.
const RANGE: std::ops::Range<u32> = 10_000..32_000;

static NEXT: AtomicU32 = AtomicU32::new(0);

/// Returns a port that is free on loopback for TCP and UDP, and that this process has not returned before.
pub fn free() -> u16 {
    let count = RANGE.end - RANGE.start;
    // Test programs that run at the same time begin at different ports.
    let start = std::process::id().wrapping_mul(131);
    for _ in 0..count {
        let port = RANGE.start + start.wrapping_add(NEXT.fetch_add(1, Ordering::Relaxed)) % count;
        let port = u16::try_from(port).unwrap();
        if TcpListener::bind(("127.0.0.1", port)).is_ok() && UdpSocket::bind(("127.0.0.1", port)).is_ok() {
            return port;
        }
    }
    panic!("no free port in {RANGE:?}");
}
