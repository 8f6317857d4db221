//! `dhtstore findprovs`
