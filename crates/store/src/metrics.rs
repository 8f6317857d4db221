//! What the store counts.

dhtstore_host::metrics! {
    /// Counts of events since the store was opened.
    pub struct Metrics {
        "dhtstore_announcements", "Announcements of provider records, by outcome" {
            /// New records.
            new ["outcome" = "new"] "added_new",
            /// Announcements of known records.
            refreshed ["outcome" = "refreshed"] "added_refreshed",
            /// Announcements within five minutes of the last, not written again.
            repeated ["outcome" = "repeated"] "added_repeated",
            /// Refused at `records.max`.
            records_full ["outcome" = "records_full"] "refused_records_full",
            /// Refused at `records.max`, because the record is far from this node.
            records_far ["outcome" = "records_far"] "refused_records_far",
            /// Refused at `records.max_per_provider`.
            provider_full ["outcome" = "provider_full"] "refused_provider_full",
            /// Refused at `records.max_providers_per_key`.
            key_full ["outcome" = "key_full"] "refused_key_full",
            /// Refused at `records.max_peers`.
            peers_full ["outcome" = "peers_full"] "refused_peers_full",
            /// Refused because the database takes no writes.
            read_only ["outcome" = "read_only"] "refused_read_only",
            /// Refused at `store.max_disk`.
            disk_full ["outcome" = "disk_full"] "refused_disk_full",
            /// Refused because the multihash is too long.
            key_too_long ["outcome" = "key_too_long"] "refused_key_too_long",
        }
        "dhtstore_records_loaded", "Provider records taken from a dump" {
            /// Records taken from a dump.
            loaded [] "loaded",
        }
        "dhtstore_records_removed", "Provider records removed, by reason" {
            /// Records removed on request.
            removed ["why" = "request"] "removed",
            /// Records that expired.
            collected ["why" = "expired"] "collected",
            /// Records dropped because there were too many, the farthest first.
            evicted ["why" = "evicted"] "evicted",
        }
        "dhtstore_records_redated", "Provider records re-dated after the wall clock stepped" {
            /// Records re-dated after the wall clock stepped.
            redated [] "redated",
        }
        "dhtstore_log_entries_replayed", "Entries of the log read at the start, by outcome" {
            /// Entries of the log read at the start.
            replayed ["outcome" = "read"] "replayed_entries",
            /// Entries of the log whose peer is not in the address book.
            unknown_peers ["outcome" = "unknown_peer"] "replay_unknown_peer",
            /// Records of the log that the limits refused.
            replay_refused ["outcome" = "no_room"] "replay_refused",
        }
        "dhtstore_log_damage", "Damage to the log, by kind" {
            /// Extents on disk that could not be read.
            damaged ["kind" = "unreadable"] "damaged",
            /// Chunks in segments that had no row in sled.
            salvaged_chunks ["kind" = "chunk_salvaged"] "salvaged_chunks",
            /// Chunks that the floor counts but a start did not find.
            lost_chunks ["kind" = "chunk_lost"] "lost_chunks",
        }
        "dhtstore_values_put", "Values put by others, by outcome" {
            /// Values of new keys.
            values_new ["outcome" = "new"] "values_new",
            /// Values that replaced a worse one.
            values_better ["outcome" = "better"] "values_better",
            /// Values that were held already.
            values_renewed ["outcome" = "renewed"] "values_renewed",
            /// Refused because the value is not valid.
            values_invalid ["outcome" = "invalid"] "values_refused_invalid",
            /// Refused because a better value is held.
            values_worse ["outcome" = "worse"] "values_refused_worse",
            /// Refused at `values.max` or `values.max_bytes`.
            values_full ["outcome" = "full"] "values_refused_full",
            /// Refused because the database takes no writes.
            values_read_only ["outcome" = "read_only"] "values_refused_read_only",
            /// Refused at `store.max_disk`.
            values_disk_full ["outcome" = "disk_full"] "values_refused_disk_full",
        }
        "dhtstore_values_removed", "Values removed, by reason" {
            /// Values that ended.
            values_collected ["why" = "ended"] "values_collected",
            /// Values that gave way to closer ones.
            values_evicted ["why" = "evicted"] "values_evicted",
        }
        "dhtstore_values_damaged", "Rows of values that could not be read" {
            /// Rows of values that could not be read.
            values_damaged [] "values_damaged",
        }
    }
}
