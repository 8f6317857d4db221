//! Fits the limits on connections to the open files that a process may have.

use super::Connections;

/// Open files to keep for clients of the control socket, segments that are read, a dump and an export: a quarter of the
/// limit, within these bounds.
pub const RESERVED: std::ops::RangeInclusive<u64> = 24..=48;

/// Handshakes get an eighth of the room, in each direction.
const PENDING_SHARE: u64 = 8;

impl Connections {
    /// Lowers the limits until they fit into `limit` open files. `used` files are open already. A connection and a
    /// handshake take one each. Returns the limits as configured, if they were lowered.
    ///
    /// # Errors
    /// The smallest limit of open files that leaves room for a connection, if `limit` does not.
    pub fn fit(&mut self, limit: u64, used: u64) -> Result<Option<Self>, u64> {
        let room = limit.saturating_sub(used + reserved(limit));
        if room < PENDING_SHARE {
            let taken = used + PENDING_SHARE;
            // A quarter of the limit is reserved, so the other three quarters must hold the taken files. The clamp
            // applies the bounds of RESERVED.
            return Err((taken * 4).div_ceil(3).clamp(taken + RESERVED.start(), taken + RESERVED.end()));
        }
        let wanted = self.clone();
        let clamp = |room: u64| u32::try_from(room).unwrap_or(u32::MAX).max(1);
        let pending = self.max_pending.min(clamp(room / PENDING_SHARE));
        // Handshakes count three times: the inbound ones, those that gave way but whose tasks have not ended yet, and
        // dials.
        let rest = clamp(room.saturating_sub(3 * u64::from(pending)));
        if self.max <= rest {
            self.max_pending = self.max_pending.min(clamp((room - u64::from(self.max)) / 3));
        } else {
            self.max = rest;
            self.max_pending = pending;
        }
        self.max_pending_per_group = self.max_pending_per_group.min(self.max_pending);
        Ok((*self != wanted).then_some(wanted))
    }
}

fn reserved(limit: u64) -> u64 {
    (limit / 4).clamp(*RESERVED.start(), *RESERVED.end())
}

#[cfg(test)]
mod tests {
    use crate::config::{Config, Profile};
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn connections_handshakes_and_what_is_reserved_fit_into_the_limit(limit in 0u64..20_000, used in 0u64..300) {
            let mut connections = Config::defaults(Profile::Private).connections;
            let wanted = connections.clone();
            match connections.fit(limit, used) {
                Err(least) => {
                    prop_assert!(limit < least);
                    prop_assert!(connections.clone().fit(least, used).is_ok());
                }
                Ok(lowered) => {
                    let taken = u64::from(connections.max) + 3 * u64::from(connections.max_pending);
                    prop_assert!(used + super::reserved(limit) + taken <= limit, "{connections:?}");
                    prop_assert!(connections.max >= 1 && connections.max_pending >= 1);
                    prop_assert!(connections.max_pending_per_group <= connections.max_pending);
                    prop_assert_eq!(lowered, (connections != wanted).then_some(wanted));
                }
            }
        }
    }

    #[test]
    fn plenty_changes_nothing() {
        let mut connections = Config::defaults(Profile::Private).connections;
        let before = connections.clone();
        assert_eq!(connections.fit(65_536, 40), Ok(None));
        assert_eq!(connections, before);
    }
}
