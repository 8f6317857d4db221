//! dhtstore: certificates whose signatures were verified lately.
//!
//! Whether the signatures of a certificate are valid depends on its bytes alone, so a certificate with the same bytes needs no
//! second check. What the handshake itself signs is checked each time, and so is the time of validity.

use std::{collections::VecDeque, sync::Mutex};

/// Certificates that are kept: those of handshakes that go on at the same time.
const CAPACITY: usize = 64;
/// Longer certificates are checked each time. Usual ones have some 350 bytes, with RSA keys up to 1,500.
const MAX_LEN: usize = 4096;

static VERIFIED: Mutex<VecDeque<Box<[u8]>>> = Mutex::new(VecDeque::new());

pub(crate) fn contains(der: &[u8]) -> bool {
    // The newest is asked for most.
    VERIFIED
        .lock()
        .is_ok_and(|verified| verified.iter().rev().any(|known| **known == *der))
}

pub(crate) fn insert(der: &[u8]) {
    if der.len() > MAX_LEN {
        return;
    }
    if let Ok(mut verified) = VERIFIED.lock() {
        if verified.len() == CAPACITY {
            verified.pop_front();
        }
        verified.push_back(der.into());
    }
}
