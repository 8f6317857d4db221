//! What the store counts.

dhtstore_host::metrics! {
    /// What happened since the store was opened.
    pub struct Metrics {
        "dhtstore_announcements", "Announcements of provider records, by what became of them" {
            /// New records.
            new ["outcome" = "new"] "added_new",
            /// Announcements of known records.
            refreshed ["outcome" = "refreshed"] "added_refreshed",
            /// Announcements within five minutes of the last, not written again.
            repeated ["outcome" = "repeated"] "added_repeated",
            /// See `Refused`.
            records_full ["outcome" = "records_full"] "refused_records_full",
            /// See `Refused`.
            records_far ["outcome" = "records_far"] "refused_records_far",
            /// See `Refused`.
            provider_full ["outcome" = "provider_full"] "refused_provider_full",
            /// See `Refused`.
            key_full ["outcome" = "key_full"] "refused_key_full",
            /// See `Refused`.
            peers_full ["outcome" = "peers_full"] "refused_peers_full",
            /// See `Refused`.
            read_only ["outcome" = "read_only"] "refused_read_only",
            /// See `Refused`.
            disk_full ["outcome" = "disk_full"] "refused_disk_full",
            /// See `Refused`.
            key_too_long ["outcome" = "key_too_long"] "refused_key_too_long",
        }
        "dhtstore_records_loaded", "Provider records taken from a dump" {
            /// Records taken from a dump.
            loaded [] "loaded",
        }
        "dhtstore_records_removed", "Provider records that went, by why" {
            /// Records removed on request.
            removed ["why" = "request"] "removed",
            /// Records that expired.
            collected ["why" = "expired"] "collected",
            /// Records dropped because there were too many, the farthest first.
            evicted ["why" = "evicted"] "evicted",
        }
        "dhtstore_records_redated", "Provider records dated anew after the wall clock stepped" {
            /// Records dated anew after the wall clock stepped.
            redated [] "redated",
        }
        "dhtstore_log_entries_replayed", "Entries of the log read at the start, by what became of them" {
            /// Entries of the log read at the start.
            replayed ["outcome" = "read"] "replayed_entries",
            /// Entries of the log whose peer is not in the address book.
            unknown_peers ["outcome" = "unknown_peer"] "replay_unknown_peer",
            /// Records of the log for which there is no room.
            replay_refused ["outcome" = "no_room"] "replay_refused",
        }
        "dhtstore_log_damage", "Damage to the log, by kind" {
            /// Extents on disk that could not be read.
            damaged ["kind" = "unreadable"] "damaged",
            /// Chunks of segments of which sled did not know.
            salvaged_chunks ["kind" = "chunk_salvaged"] "salvaged_chunks",
            /// Chunks that should be there and are not.
            lost_chunks ["kind" = "chunk_lost"] "lost_chunks",
        }
        "dhtstore_values_put", "Values put by others, by what became of them" {
            /// None was held under the key.
            values_new ["outcome" = "new"] "values_new",
            /// It took the place of a worse one.
            values_better ["outcome" = "better"] "values_better",
            /// The same was held.
            values_renewed ["outcome" = "renewed"] "values_renewed",
            /// See `values::Refused`.
            values_invalid ["outcome" = "invalid"] "values_refused_invalid",
            /// See `values::Refused`.
            values_worse ["outcome" = "worse"] "values_refused_worse",
            /// See `values::Refused`.
            values_full ["outcome" = "full"] "values_refused_full",
            /// See `values::Refused`.
            values_read_only ["outcome" = "read_only"] "values_refused_read_only",
            /// See `values::Refused`.
            values_disk_full ["outcome" = "disk_full"] "values_refused_disk_full",
        }
        "dhtstore_values_removed", "Values that went, by why" {
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
