//! `swarm.key`: the pre-shared key of a private network, in Kubo's format.
