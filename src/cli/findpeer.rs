//! `dhtstore findpeer`
