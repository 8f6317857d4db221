//! Access to the machine: clocks, small files that the operator names, counters, and tasks that must not end.
//!
//! Begin with these types:
//! - [`clock::Clock`]: the source of time. No other module reads a clock: code that needs the time takes a `Clock`, and
//!   tests give it a [`clock::ManualClock`];
//! - [`metrics::Counter`]: counts events. [`metrics!`] defines a struct of them for `dhtstore stat` and OpenMetrics;
//! - [`vital::Vital`]: watches the tasks that a node cannot do without.
//!
//! The module [`files`] reads files of bounded size.
//!
//! ```
//! use dhtstore_host::clock::{Clock, ManualClock, UnixTime};
//! use std::time::Duration;
//!
//! let clock = ManualClock::at(UnixTime(1_700_000_000));
//! clock.advance(Duration::from_secs(60));
//! assert_eq!(clock.wall().since(UnixTime(1_700_000_000)), Duration::from_secs(60));
//! assert_eq!(clock.wall().to_string(), "2023-11-14T22:14:20Z");
//! ```

pub mod clock;
pub mod files;
pub mod metrics;
pub mod vital;
