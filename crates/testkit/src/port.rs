//! Ports for processes that bind them later than they are chosen.

use std::{
    net::{TcpListener, UdpSocket},
    sync::atomic::{AtomicU32, Ordering},
};

/// Below what the system hands to outgoing connections (32,768 on Linux): a port from there may be taken by any
/// connection of another test between now and then.
const RANGE: std::ops::Range<u32> = 10_000..32_000;

static NEXT: AtomicU32 = AtomicU32::new(0);

/// Returns a port of loopback that nobody has, TCP and UDP, and that this process has not chosen before.
pub fn free() -> u16 {
    let count = RANGE.end - RANGE.start;
    // Test programs begin at different places.
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
