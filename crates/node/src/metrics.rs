//! The counters of a node.

dhtstore_host::metrics! {
    /// Counters since the start of the node.
    pub struct Metrics {
        "dhtstore_dht_requests", "DHT requests by type and outcome" {
            /// FIND_NODEs answered.
            find_node ["type" = "find_node", "outcome" = "answered"] "requests find-node",
            /// GET_PROVIDERS answered.
            get_providers ["type" = "get_providers", "outcome" = "answered"] "requests get-providers",
            /// ADD_PROVIDERs stored.
            add_provider ["type" = "add_provider", "outcome" = "taken"] "requests add-provider",
            /// PINGs answered.
            ping ["type" = "ping", "outcome" = "answered"] "requests ping",
            /// GET_VALUEs answered.
            get_value ["type" = "get_value", "outcome" = "answered"] "requests get-value",
            /// PUT_VALUEs stored.
            put_value ["type" = "put_value", "outcome" = "taken"] "requests put-value",
            /// Messages that could not be parsed; their type is unknown.
            malformed ["type" = "unknown", "outcome" = "malformed"] "refused, malformed message",
            /// Streams reset because of a bad length prefix.
            bad_frame ["type" = "unknown", "outcome" = "bad_length_prefix"] "refused, length prefix",
            /// Streams reset because a message did not arrive completely in time.
            message_timeout ["type" = "unknown", "outcome" = "not_finished"] "refused, message not finished in time",
            /// Requests refused: empty key.
            empty_key ["type" = "any", "outcome" = "empty_key"] "refused, empty key",
            /// Requests refused: key longer than 80 bytes.
            key_too_long ["type" = "any", "outcome" = "key_too_long"] "refused, key too long",
            /// Requests refused: key is not a multihash.
            not_a_multihash ["type" = "any", "outcome" = "not_a_multihash"] "refused, not a multihash",
            /// Requests refused: no provider entry names the sender.
            not_the_sender ["type" = "add_provider", "outcome" = "not_the_sender"] "refused, provider is not the \
                sender",
            /// Requests refused: values of this kind are not stored.
            unknown_namespace ["type" = "put_value", "outcome" = "unknown_namespace"] "refused, value not stored here",
            /// Requests refused: record missing or malformed.
            bad_record ["type" = "put_value", "outcome" = "bad_record"] "refused, bad record",
            /// Values refused: unfit for their key, wrongly signed, or expired.
            invalid_value ["type" = "put_value", "outcome" = "invalid"] "refused, invalid value",
            /// Values refused: this node holds a better one.
            worse_value ["type" = "put_value", "outcome" = "worse"] "refused, better value held",
            /// Announcements and values that the store refused.
            store_refused ["type" = "any", "outcome" = "store_limit"] "refused, store limit",
        }
        "dhtstore_dht_streams", "Inbound DHT streams by outcome" {
            /// Inbound streams served.
            streams_served ["outcome" = "served"] "streams served",
            /// Inbound streams dropped: `streams.max_per_connection` is reached.
            streams_over_connection_limit ["outcome" = "connection_limit"] "streams dropped, connection limit",
            /// Inbound streams dropped: the limit of the process is reached.
            streams_over_process_limit ["outcome" = "process_limit"] "streams dropped, process limit",
            /// Streams reset because `streams.read_budget` was used up.
            over_budget ["outcome" = "read_budget"] "refused, read budget used up",
            /// Streams reset because the peer did not read its answers.
            write_stalled ["outcome" = "answers_not_read"] "refused, answers not read",
            /// Streams that ended in the middle of a message or broke.
            stream_broken ["outcome" = "broken"] "streams broken",
            /// Streams that ended because no request came for `streams.idle`.
            stream_idle ["outcome" = "idle"] "streams ended, idle",
        }
        "dhtstore_handshakes_ended", "Inbound handshakes that were not finished because of a limit" {
            /// Inbound handshakes that gave way to newcomers: `connections.max_pending` or
            /// `connections.max_pending_per_group` is reached.
            handshakes_gave_way ["why" = "gave_way"] "handshakes that gave way",
            /// Newcomers refused at the same limits, because all other handshakes were too young to give way.
            handshakes_refused ["why" = "refused"] "handshakes refused",
        }
        "dhtstore_connections_denied", "Connections denied by a limit" {
            /// Inbound connections denied: `connections.max_per_ip` is reached.
            connections_per_ip ["limit" = "per_ip"] "connections denied, per IP",
            /// Inbound or outbound connections denied by the other limits.
            connections_over_limit ["limit" = "other"] "connections denied, limit",
        }
        "dhtstore_routing_probes", "Probes of candidates for a routing table" {
            /// Probes of candidates for a routing table that were answered.
            probes_answered ["outcome" = "answered"] "routing probes answered",
            /// Probes of candidates for a routing table that failed.
            probes_failed ["outcome" = "failed"] "routing probes failed",
            /// Candidates dropped because too many probes were under way.
            probes_dropped ["outcome" = "dropped"] "routing probes dropped",
        }
        "dhtstore_routing_peers_removed", "Peers removed from a routing table because they did not answer" {
            /// Peers removed from a routing table because they did not answer.
            peers_removed [] "routing peers removed",
        }
        "dhtstore_autonat_dials", "AutoNAT: dials for other peers, to test whether they can be reached" {
            /// AutoNAT: dials for other peers, to test whether they can be reached.
            dial_backs ["outcome" = "made"] "autonat dials for others",
            /// AutoNAT: dials for other peers that were refused because of a limit or the address.
            dial_backs_refused ["outcome" = "refused"] "autonat dials for others refused",
        }
        "dhtstore_autonat_asked", "Peers that were asked to reach this node" {
            /// AutoNAT: peers that reached us when we asked them to.
            reached_back ["outcome" = "reached"] "autonat reached by",
            /// AutoNAT: peers that did not reach us when we asked them to.
            not_reached_back ["outcome" = "not_reached"] "autonat not reached by",
        }
        "dhtstore_mode_changes", "Changes from server to client and back" {
            /// Changes from server to client and back.
            mode_changes [] "mode changes",
        }
    }
}
