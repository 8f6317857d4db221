//! Counters of events since the start. Each crate has one struct of counters, defined with
//! [`metrics!`](crate::metrics!). `dhtstore stat` and a scraper of OpenMetrics read the same fields.

use prometheus_client::{
    encoding::NoLabelSet,
    metrics::{MetricType, counter::Counter as Inner},
};
use std::{collections::BTreeMap, fmt};

/// A counter of events. It never goes back. Its atomic accesses are relaxed, so they order nothing.
#[derive(Clone, Debug, Default)]
pub struct Counter(Inner);

impl Counter {
    /// Adds one.
    pub fn inc(&self) {
        self.0.inc();
    }

    /// Adds `n`.
    pub fn add(&self, n: u64) {
        self.0.inc_by(n);
    }

    /// Returns the count.
    pub fn get(&self) -> u64 {
        self.0.get()
    }
}

/// A series: the labels that distinguish it in its family, its name in `stat`, and its counter.
pub type Series<'m> = (&'static [(&'static str, &'static str)], &'static str, &'m Counter);

/// Series that differ only in their labels.
#[derive(Debug)]
pub struct Family<'m> {
    /// Name for Prometheus, without the `_total` that the encoder appends to counters.
    pub name: &'static str,
    /// Help text, one line.
    pub help: &'static str,
    /// The series; at least one.
    pub series: Vec<Series<'m>>,
}

impl Family<'_> {
    /// Encodes the family for a scrape.
    ///
    /// # Errors
    /// Errors of the encoder.
    pub fn encode(&self, encoder: &mut DescriptorEncoder<'_>) -> fmt::Result {
        let mut family = encoder.encode_descriptor(self.name, self.help, None, MetricType::Counter)?;
        for (labels, _, counter) in &self.series {
            if labels.is_empty() {
                family.encode_counter::<NoLabelSet, _, u64>(&counter.get(), None)?;
            } else {
                family.encode_family(labels)?.encode_counter::<NoLabelSet, _, u64>(&counter.get(), None)?;
            }
        }
        Ok(())
    }
}

/// Returns the counts by their name in `stat`.
pub fn by_name(families: &[Family<'_>]) -> BTreeMap<String, u64> {
    let series = families.iter().flat_map(|family| &family.series);
    series.map(|(_, name, counter)| ((*name).to_owned(), counter.get())).collect()
}

/// Defines a struct of counters. Each line has a field, its labels and its name in `stat`.
///
/// ```
/// dhtstore_host::metrics! {
///     /// What a door counts.
///     pub struct Metrics {
///         "door_visitors", "Visitors, by outcome" {
///             /// Visitors let in.
///             let_in ["outcome" = "let_in"] "visitors let in",
///             /// Visitors turned away.
///             turned_away ["outcome" = "turned_away"] "visitors turned away",
///         }
///     }
/// }
/// let metrics = Metrics::default();
/// metrics.let_in.inc();
/// assert_eq!(metrics.by_name()["visitors let in"], 1);
/// ```
#[macro_export]
macro_rules! metrics {
    (
        $(#[$about:meta])* $vis:vis struct $name:ident {
            $($metric:literal, $help:literal {
                $($(#[$doc:meta])* $field:ident [$($label:literal = $value:literal),*] $stat:literal,)*
            })*
        }
    ) => {
        $(#[$about])*
        #[derive(Debug, Default)]
        $vis struct $name {
            $($($(#[$doc])* pub $field: $crate::metrics::Counter,)*)*
        }

        impl $name {
            /// Returns all counters, by family.
            pub fn families(&self) -> Vec<$crate::metrics::Family<'_>> {
                vec![$($crate::metrics::Family {
                    name: $metric,
                    help: $help,
                    series: vec![$((&[$(($label, $value)),*], $stat, &self.$field)),*],
                },)*]
            }

            /// Returns the counts by their name in `stat`.
            pub fn by_name(&self) -> std::collections::BTreeMap<String, u64> {
                $crate::metrics::by_name(&self.families())
            }
        }

        impl $crate::metrics::Collector for $name {
            fn encode(&self, mut encoder: $crate::metrics::DescriptorEncoder<'_>) -> std::fmt::Result {
                self.families().iter().try_for_each(|family| family.encode(&mut encoder))
            }
        }
    };
}

pub use prometheus_client::{collector::Collector, encoding::DescriptorEncoder};

#[cfg(test)]
mod tests {
    use prometheus_client::{encoding::text::encode, registry::Registry};
    use std::sync::Arc;

    crate::metrics! {
        /// For the test.
        struct Metrics {
            "test_requests", "Requests, by kind" {
                /// One.
                one ["kind" = "one", "outcome" = "answered"] "requests one",
                /// Two.
                two ["kind" = "two", "outcome" = "answered"] "requests two",
            }
            "test_changes", "Changes" {
                /// Changes.
                changes [] "changes",
            }
        }
    }

    #[test]
    fn what_is_counted_is_read_by_name_and_as_openmetrics() {
        let metrics = Arc::new(Metrics::default());
        metrics.one.inc();
        metrics.two.add(3);
        metrics.changes.inc();
        let by_name: Vec<(String, u64)> = metrics.by_name().into_iter().collect();
        assert_eq!(by_name, [("changes".into(), 1), ("requests one".into(), 1), ("requests two".into(), 3)]);
        let mut registry = Registry::default();
        registry.register_collector(Box::new(metrics));
        let mut text = String::new();
        encode(&mut text, &registry).unwrap();
        assert_eq!(
            text,
            "# HELP test_requests Requests, by kind\n\
             # TYPE test_requests counter\n\
             test_requests_total{kind=\"one\",outcome=\"answered\"} 1\n\
             test_requests_total{kind=\"two\",outcome=\"answered\"} 3\n\
             # HELP test_changes Changes\n\
             # TYPE test_changes counter\n\
             test_changes_total 1\n\
             # EOF\n"
        );
    }
}
