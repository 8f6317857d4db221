//! What happened since the start, counted: one struct for each crate, a field for each count, written once with
//! [`metrics!`](crate::metrics!). `dhtstore stat` reads the same fields that a scraper of OpenMetrics does.

use prometheus_client::{
    encoding::NoLabelSet,
    metrics::{MetricType, counter::Counter as Inner},
};
use std::{collections::BTreeMap, fmt};

/// Counts events. Never goes back; relaxed, so it orders nothing.
#[derive(Clone, Debug, Default)]
pub struct Counter(Inner);

impl Counter {
    /// One more.
    pub fn inc(&self) {
        self.0.inc();
    }

    /// `n` more.
    pub fn add(&self, n: u64) {
        self.0.inc_by(n);
    }

    /// How many.
    pub fn get(&self) -> u64 {
        self.0.get()
    }
}

/// One series: what tells it from the others of its family, the name that `stat` gives it, and its count.
pub type Series<'m> = (&'static [(&'static str, &'static str)], &'static str, &'m Counter);

/// Series that differ in their labels alone.
#[derive(Debug)]
pub struct Family<'m> {
    /// As Prometheus names it, less the `_total` that it puts behind counters.
    pub name: &'static str,
    /// One line.
    pub help: &'static str,
    /// At least one.
    pub series: Vec<Series<'m>>,
}

impl Family<'_> {
    /// Writes the family for a scrape.
    ///
    /// # Errors
    /// Those of the encoder.
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

/// The counts by the name that `stat` gives them.
pub fn by_name(families: &[Family<'_>]) -> BTreeMap<String, u64> {
    let series = families.iter().flat_map(|family| &family.series);
    series.map(|(_, name, counter)| ((*name).to_owned(), counter.get())).collect()
}

/// Defines a struct of counters. Each line has a field, its labels and the name that `stat` gives it.
///
/// ```
/// dhtstore_host::metrics! {
///     /// What a door counts.
///     pub struct Metrics {
///         "door_visitors", "Who came, by what became of them" {
///             /// Let in.
///             let_in ["outcome" = "let_in"] "visitors let in",
///             /// Turned away.
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
            /// All counters, by family.
            pub fn families(&self) -> Vec<$crate::metrics::Family<'_>> {
                vec![$($crate::metrics::Family {
                    name: $metric,
                    help: $help,
                    series: vec![$((&[$(($label, $value)),*], $stat, &self.$field)),*],
                },)*]
            }

            /// The counts by the name that `stat` gives them.
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
